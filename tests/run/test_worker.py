"""The worker's own functions: which images it times, and what it reads of the machine."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from harness.run import worker
from harness.run.worker import STATE, TICKS, Gauges


@pytest.mark.parametrize(("images", "timed"), [(1, 1), (256, 256), (257, 256), (511, 256), (2200, 256)])
def test_at_most_256_images_are_timed(images: int, timed: int) -> None:
    """From the first to nearly the last at even distances, each once."""
    chosen = worker.timed_images(np.arange(images))
    assert len(set(chosen.tolist())) == timed
    assert chosen[0] == 0
    assert images - chosen[-1] <= math.ceil(images / timed)


def test_a_slow_model_is_heard_of(
    tiny_variants: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that takes 20 s an image says so image by image, not after 32 of them, when it would have been stopped."""
    content, images = (tiny_variants / "int8.tflite").read_bytes(), np.zeros((70, 28, 28, 1), np.float32)

    def reports(every_s: float) -> list[int]:
        monkeypatch.setattr(worker, "REPORT_S", every_s)
        worker.answers({"int8": content}, images, {"name": "int8", "parallel": 1})
        return [json.loads(line)["done"] for line in capsys.readouterr().out.splitlines()]

    assert reports(60) == [32, 64, 70]
    assert sorted(set(reports(-1))) == list(range(1, 71))


def stat(folder: Path, busy: dict[int, float], cores: int = 64) -> Path:
    """A root with a /proc/stat of many cores, each busy for so many seconds, and as long robbed by the hypervisor."""
    rows = [
        f"cpu{core} {busy.get(core, 0) * TICKS:.0f} 0 0 9999 9 0 0 {busy.get(core, 0) * TICKS:.0f} 0 0"
        for core in range(cores)
    ]
    (folder / "proc").mkdir(exist_ok=True)
    (folder / "proc/stat").write_text("\n".join(["cpu  1000000 0 1000000 9 9 9 9 1000000 0 0", *rows, "intr 0 0"]))
    return folder


def test_what_other_cores_do_is_not_read(tmp_path: Path) -> None:
    """A worker that is bound to cores 62 and 63 reads the mean of these two, whatever the 62 others do."""
    root = stat(tmp_path, dict.fromkeys(range(64), 50.0) | {62: 3.0, 63: 5.0})
    state = dict(zip(STATE, Gauges([62, 63], root).read(), strict=True))
    assert state["steal_s"] == 4.0
    assert state["others_s"] == pytest.approx(4.0 - state["cpu_s"] / 2)


def test_a_core_without_a_line_is_unavailable(tmp_path: Path) -> None:
    """As in some containers, where the system counts the cores anew: not known, which is not zero."""
    state = dict(zip(STATE, Gauges([1, 70], stat(tmp_path, {})).read(), strict=True))
    assert math.isnan(state["others_s"])
    assert math.isnan(state["steal_s"])
