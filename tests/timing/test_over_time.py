"""Latency over time: a planted slow-down is found with its minute, and each mode has figures and limits of its own."""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from harness.cli import main
from harness.core.outcome import Interval, Outcome
from harness.images import dataset
from harness.judge.policy import LatencyRule
from harness.run import execute, job, worker
from harness.run.devices.local import Local
from harness.run.latency_plan import LatencyPlan
from harness.run.latency_run import LatencyRun, latency_run
from harness.timing import limits, over_time, verdict
from harness.timing.figures import Latency, Memory, OverTime
from harness.timing.limits import Exact
from models.config import DIGITS
from tests.conftest import refusal
from tests.needs import absent

SHORT = LatencyPlan(processes=1, turns=1, block_s=0.002, warmup_s=0.01)
QUOTAS = Path("/sys/fs/cgroup/cpu")  # of cgroup version 1
Slow = Callable[[int], None]  # a process, by its id


@pytest.mark.parametrize(
    ("levels", "begin"),
    [
        ([1.0, 1.0, 1.01, 1.0, 0.99, 1.0], 1),  # nothing happens: all but the first bucket
        ([1.0, 1.0, 1.0, 1.4, 1.41, 1.4, 1.4], 3),
        ([1.0, 1.1, 1.2, 1.3, 1.4, 1.41, 1.4, 1.4, 1.4, 1.4], 4),  # throttled more and more
        ([1.0, 1.0, 1.4, 1.4, 2.5, 1.4, 1.4, 1.4, 1.4, 1.4], 2),  # one disturbed minute
        ([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0], None),  # it happened just now
        ([1.0], None),
    ],
)
def test_the_plateau_begins_where_the_level_of_the_end_is_reached(levels: list[float], begin: int | None) -> None:
    """Never with the first bucket, which is kept apart."""
    assert over_time.plateau(levels) == begin


def measured(
    variants: Path, images: Path, folder: Path, plan: LatencyPlan, slow: Slow | None = None
) -> list[LatencyRun]:
    """A float32 file measured by a plan. slow: is called with the worker's id after a second of its sustained run."""
    wrapper, number = folder / "python", folder / "pid"
    wrapper.write_text(f'#!/bin/sh\necho $$ > {number}\nexec {sys.executable} "$@"\n')
    wrapper.chmod(stat.S_IRWXU)
    (folder / "job").mkdir()
    content = (variants / "float32.tflite").read_bytes()
    written = job.write_latency(folder / "job", {"float32": content}, dataset.load(images, DIGITS), plan)

    def progress(task: str, done: int, total: int) -> None:
        if slow and task == f"{job.LATENCY}-2" and done:
            slow(int(number.read_text()))

    outputs = execute.run(written, progress, Local(str(wrapper)))
    assert not outputs.failures
    return [latency_run(result.arrays, task) for task, result in outputs.results.items()]


class Brake:
    """Lets a process run a tenth of the time. began: by the clock of the worker; None if it has not."""

    def __init__(self) -> None:
        self.began: float | None = None
        self._released = threading.Event()

    def __call__(self, process: int) -> None:
        if self.began is None:
            self.began = time.perf_counter()
            threading.Thread(target=self._brake, args=(process,)).start()

    def _brake(self, process: int) -> None:
        try:
            while not self._released.wait(0.01):
                os.kill(process, signal.SIGSTOP)
                time.sleep(0.09)
                os.kill(process, signal.SIGCONT)
        except ProcessLookupError:
            pass

    def release(self) -> None:
        self._released.set()


def course_of(runs: list[LatencyRun]) -> tuple[OverTime, float]:
    """Of the sustained run, and when it began by the clock of the worker."""
    course = verdict.by_mode(runs)["sustained"]["float32"].over_time
    assert course is not None
    return course, float(runs[1].column("clock_s")[0, 0])


def test_a_planted_slow_down_is_found(tiny_variants: Path, few_images: Path, tmp_path: Path) -> None:
    """A process that may run a tenth of the time from some moment on: its plateau begins there, and is far slower."""
    brake = Brake()
    try:
        plan = LatencyPlan(processes=1, turns=1, block_s=0.002, warmup_s=0.01, sustain_s=4)
        course, began = course_of(measured(tiny_variants, few_images, tmp_path, plan, brake))
    finally:
        brake.release()
    assert brake.began is not None
    assert course.plateau_s == pytest.approx(brake.began - began, abs=2 * course.bucket_s)
    assert course.slowdown is not None
    assert course.slowdown > 2
    assert course.buckets[-1].core_share < course.buckets[0].core_share


@contextmanager
def quota() -> Iterator[Path]:
    """A group of processes whose processor time can be limited."""
    group = QUOTAS / f"harness-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        absent("cgroups", f"{group}: {error.strerror}")
    yield group
    group.rmdir()


@pytest.mark.slow
def test_a_quota_that_closes_is_found(tiny_variants: Path, few_images: Path, tmp_path: Path) -> None:
    """The same by a cgroup's quota, as in a container, which closes after some twelve of forty seconds."""
    seen: list[float] = []
    began: list[float] = []
    with quota() as group:

        def close(process: int) -> None:
            seen.append(time.perf_counter())
            if not began and seen[-1] - seen[0] > 12:
                (group / "cgroup.procs").write_text(str(process))
                (group / "cpu.cfs_quota_us").write_text("25000")  # of 100000
                began.append(time.perf_counter())

        plan = LatencyPlan(processes=1, turns=1, block_s=0.002, warmup_s=0.01, sustain_s=40)
        course, start = course_of(measured(tiny_variants, few_images, tmp_path, plan, close))
    assert course.plateau_s == pytest.approx(began[0] - start, abs=1.6 * course.bucket_s)
    assert course.slowdown is not None
    assert course.slowdown > 2


def test_each_mode_is_measured(tiny_variants: Path, few_images: Path, tmp_path: Path) -> None:
    """Paced and cold beside the steady one: 64 inferences after a pause, and three fresh processes."""
    plan = LatencyPlan(processes=1, turns=1, block_s=0.002, warmup_s=0.01, pace_s=0.001, cold_starts=3)
    figures = verdict.by_mode(measured(tiny_variants, few_images, tmp_path, plan))
    assert list(figures) == ["steady", "paced", "cold"]
    paced, cold = figures["paced"]["float32"], figures["cold"]["float32"]
    assert (paced.samples, paced.processes, cold.samples, cold.processes) == (64, 4, 3, 3)
    assert paced.p90 is not None
    assert cold.p90 is None
    assert cold.load_interval is not None
    assert cold.median == pytest.approx(cold.load + cold.first, rel=0.5)


def test_a_file_is_dropped_from_memory_where_that_is_allowed(tmp_path: Path) -> None:
    """All of it stays in a tmpfs, none of it on a disk; of a file that is not there nothing is known."""
    file = tmp_path / "a"
    file.write_bytes(bytes(1_000_000))
    assert worker.forget(file) in (0.0, 1.0)
    shared = Path("/dev/shm")
    if os.access(shared, os.W_OK):
        (shared / "harness-test").write_bytes(bytes(1_000_000))
        assert worker.forget(shared / "harness-test") == 1.0
        (shared / "harness-test").unlink()
    assert np.isnan(worker.forget(tmp_path / "none"))


def figures(p90: float) -> Latency:
    """Of a p90; all else is 1 s and 1 MB, with an interval of 10 %."""
    near = Interval(0.9, 1.1)
    return Latency(
        1.0, near, p90, Interval(0.9 * p90, 1.1 * p90), None, None, 1.0, 1.0, 100, 5, Memory(1_000_000, 1),
        load_interval=near, first_interval=near, memory_interval=Interval(0.9e6, 1.1e6),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "outcome", "reason"),
    [
        (LatencyRule(max_load_s=1.2), Outcome.PASS, "int8: load 1e+03 ms (900 ms to 1.1e+03 ms), 1.2e+03 ms allowed"),
        (LatencyRule(max_load_s=0.8), Outcome.FAIL, "int8: load"),
        (LatencyRule(max_first_s=1.0), Outcome.INCONCLUSIVE, "int8: first"),
        (LatencyRule(max_memory_bytes=2e6), Outcome.PASS, "int8: memory 1 MB (0.9 MB to 1.1 MB), 2 MB allowed"),
        (LatencyRule(max_memory_bytes=5e5), Outcome.FAIL, "int8: memory"),
        (LatencyRule(max_p90_s=1.5), Outcome.PASS, "int8: p90"),
        (LatencyRule(max_p90_s=1.5, mode="sustained"), Outcome.FAIL, "int8: sustained p90"),
        (
            LatencyRule(max_median_s=2, mode="cold"),
            Outcome.INCONCLUSIVE,
            "int8: cold latency was not measured; harness",
        ),
    ],
)
def test_load_first_inference_and_memory_have_limits_in_each_mode(
    rule: LatencyRule, outcome: Outcome, reason: str
) -> None:
    """Judged by their intervals, as latency is; a mode that was not measured is INCONCLUSIVE."""
    (judged,) = limits.judge([rule], {"steady": {"int8": figures(1.0)}, "sustained": {"int8": figures(2.0)}}, [])
    assert judged.outcome is outcome
    assert judged.reasons[0].startswith(reason)


def test_size_is_limited_without_a_measurement() -> None:
    """Known exactly: no noise makes it INCONCLUSIVE, and none is needed for it."""
    rules = [LatencyRule(max_size_bytes=1000)]
    for size, outcome in ((1000, Outcome.PASS), (1001, Outcome.FAIL)):
        timing = verdict.judge([], {}, 1, rules, cells={"int8": Exact(size)})
        assert (timing.verdict.outcome, timing.gated) == (outcome, True)
    timing = verdict.judge([], {}, 1, [*rules, LatencyRule(max_load_s=1)], cells={"int8": Exact(999)})
    assert timing.verdict.outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--sustain", "10x"], "--sustain 10x: expected a time with its unit, such as 10m, 90s or 500ms"),
        (["--pace", "0"], "--pace 0: expected a time"),
        (["--cold", "1"], "--cold 1: expected a whole number, at least 2"),
        (["--no-latency", "--pace", "500ms"], "--pace: measures latency, which --no-latency leaves out"),
    ],
)
def test_impossible_modes_are_refused(words: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In one line, before anything is run."""
    assert reason in refusal(capsys, main(["check", *words]))


def test_a_ratio_limits_only_the_steady_mode() -> None:
    """The others have no baseline."""
    with pytest.raises(ValueError, match="the rule's mode is 'cold'"):
        LatencyRule(max_ratio=1.05, mode="cold")
