"""A worker that is killed, hangs or cannot start: the other tasks' results survive."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from converters import manifest
from harness import check, dataset, job
from harness.errors import SetupError
from harness.job import LATENCY, Job, LatencyPlan
from harness.verdict import Outcome
from tests.conftest import DIGITS

QUICK = LatencyPlan(rounds=2, block=5, warmup_s=0.01)


@pytest.fixture
def tiny_job(tiny_variants: Path, few_images: Path, tmp_path: Path) -> Job:
    """A job of three variants in a folder of its own."""
    return job.write(
        tmp_path, tiny_variants, manifest.read(tiny_variants), dataset.load(few_images, DIGITS), QUICK, parallel=2
    )


def signal_at(written: Job, task: str, number: signal.Signals) -> Callable[[str, int, int], None]:
    """A progress callback that signals the worker when the task begins."""
    worker = str(written.folder / "worker.py").encode()

    def progress(current: str, done: int, total: int) -> None:
        if current != task or done:
            return
        for command in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if worker in command.read_bytes().split(b"\0"):
                    os.kill(int(command.parent.name), number)

    return progress


def test_a_killed_worker_leaves_one_variant_inconclusive(tiny_job: Job) -> None:
    """Killed at int8, as by a machine out of memory: that one is INCONCLUSIVE, the rest is answered and timed."""
    outputs = check.run(tiny_job, signal_at(tiny_job, "int8", signal.SIGKILL))
    assert set(outputs.results) == {"float32", "dynamic_range", LATENCY}
    assert outputs.failures["int8"].outcome is Outcome.INCONCLUSIVE
    assert "exit code -9" in outputs.failures["int8"].reasons[0]
    assert "int8.samples" not in outputs.results[LATENCY].arrays
    assert outputs.results[LATENCY].arrays["float32.samples"].shape == (2, 5)


def test_a_hanging_worker_is_stopped(tiny_job: Job) -> None:
    """Silent past the limit: INCONCLUSIVE, and the others go on."""
    outputs = check.run(tiny_job, signal_at(tiny_job, "dynamic_range", signal.SIGSTOP), silence_limit_s=15)
    assert outputs.failures["dynamic_range"].outcome is Outcome.INCONCLUSIVE
    assert "silent too long" in outputs.failures["dynamic_range"].reasons[0]
    assert {"float32", "int8"} <= set(outputs.results)


def test_a_crash_while_timing_keeps_the_answers(tiny_job: Job) -> None:
    """Crashed in the latency task: every variant's answers are there."""
    outputs = check.run(tiny_job, signal_at(tiny_job, LATENCY, signal.SIGSEGV))
    assert set(outputs.results) == {"float32", "dynamic_range", "int8"}
    assert outputs.failures[LATENCY].outcome is Outcome.FAIL


def test_a_worker_that_cannot_start_is_a_set_up_error(tiny_job: Job) -> None:
    """No verdict on a variant, but one line on what is wrong."""
    (tiny_job.folder / "worker.py").write_text("raise SystemExit('no interpreter: install ai-edge-litert')")
    with pytest.raises(SetupError, match="no interpreter"):
        check.run(tiny_job, lambda *_: None)


def test_results_of_another_job_are_not_taken(tiny_job: Job) -> None:
    """A result whose nonce is not the job's, and one that is cut short, are INCONCLUSIVE, not data."""
    check.run(tiny_job, lambda *_: None)
    path = tiny_job.result_path("int8")
    path.write_bytes(path.read_bytes()[:200])
    outputs = check.run(tiny_job, lambda *_: None)
    assert outputs.failures["int8"].outcome is Outcome.INCONCLUSIVE
    assert "damaged" in outputs.failures["int8"].reasons[0]
    stranger = Job(tiny_job.folder, "another nonce", tiny_job.tasks)
    outputs = check.run(stranger, lambda *_: None)
    assert not outputs.results
    assert "another job" in outputs.failures["float32"].reasons[0]
