"""A worker's process as its host follows it."""

from __future__ import annotations

import pytest

from harness.run.devices import worker_process


def test_a_silent_worker_does_not_hold_up_who_wants_to_stop() -> None:
    """Progress is called again while a worker computes in silence, and may end the run."""
    calls = []

    def progress(*words: object) -> None:
        calls.append(words)
        if len(calls) == 2:
            raise KeyboardInterrupt

    process = worker_process.start(["sh", "-c", """echo '{"task": "int8", "done": 1, "total": 2}'; exec sleep 600"""])
    with pytest.raises(KeyboardInterrupt):
        worker_process.follow(process, progress, silence_limit_s=60)
    assert calls == [("int8", 1, 2)] * 2
    assert process.poll() is not None
