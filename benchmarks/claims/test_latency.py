"""What latency measurement promises: agreement with others, even controls, small slow-downs found, disturbance seen."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from msgspec.structs import replace
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.claims.conftest import Claim
from benchmarks.conftest import VARIANTS
from harness.artifacts import manifest
from harness.artifacts.manifest import Variant
from harness.images.dataset import Dataset
from harness.run import execute, job, worker
from harness.run.latency_plan import LatencyPlan
from harness.run.latency_run import latency_run
from harness.timing import verdict
from harness.timing.figures import AAControl, Ratio, Timing
from harness.tools import litert_benchmark

KIND = "int8"  # the fastest: whatever is wrong shows most
PLANTED = 1.05
REPETITIONS, AT_LEAST = 40, 36

LOADED = "        prepared = model.quantize(images)\n"
SLOWER = """\
        if kind == "slower":
            def slower(invoke=model.invoke, clock=time.perf_counter):
                begin = clock()
                invoke()
                until = begin + {planted} * (clock() - begin)
                while clock() < until:
                    pass
            model.invoke = slower
"""


@dataclass(frozen=True)
class Repetition:
    """One whole measurement: the same file twice, and once more with a slow-down planted in the worker."""

    control: AAControl
    slower: Ratio


def repetition(folder: Path, variant: Variant, data: Dataset) -> Repetition:
    subjects = {KIND: variant, "slower": replace(variant, kind="slower")}
    timing = measure(folder, subjects, data, LatencyPlan())
    assert timing.control
    return Repetition(timing.control, timing.ratios[0])


def measure(
    folder: Path, subjects: dict[str, Variant], data: Dataset, plan: LatencyPlan, progress: object = None
) -> Timing:
    written = job.write_latency(folder, manifest.contents(VARIANTS, subjects), data, plan)
    source = (folder / "worker.py").read_text()
    assert LOADED in source
    (folder / "worker.py").write_text(source.replace(LOADED, LOADED + SLOWER.format(planted=PLANTED)))
    outputs = execute.run(written, progress or (lambda *_: None))  # type: ignore[arg-type]
    assert not outputs.failures
    runs = [latency_run(result.arrays, task) for task, result in outputs.results.items()]
    return verdict.judge(runs, verdict.by_mode(runs), plan.threads)


@pytest.mark.parametrize("kind", ["float32", KIND])
def test_beside_litert_benchmark(
    kind: str, variants: dict[str, Variant], data: Dataset, benchmark: BenchmarkFixture, claim: Claim
) -> None:
    """Ours / litert-benchmark's median on the same file and thread, turn by turn: 0.97 to 1.03 in the median of 10."""
    turns = benchmark.pedantic(lambda: list(litert_benchmark.compare(VARIANTS, variants[kind], data, 1, 10)), rounds=1)
    ratio = median(turn.ratio for turn in turns)
    what = f"latency: {kind}'s median / litert-benchmark's"
    claim(what, ratio, at_least=0.97, at_most=1.03, turns=[turn.ratio for turn in turns])


def test_controls_and_planted_slowdowns(
    variants: dict[str, Variant], data: Dataset, tmp_path: Path, benchmark: BenchmarkFixture, claim: Claim
) -> None:
    """Of 40 intervals of the same file twice at least 36 hold 1, the median 4 % wide at most; 36 call a planted 5 %."""

    def repetitions() -> list[Repetition]:
        found = []
        for number in range(REPETITIONS):
            (folder := tmp_path / str(number)).mkdir()
            found.append(repetition(folder, variants[KIND], data))
        return found

    found = benchmark.pedantic(repetitions, rounds=1)
    controls = [one.control.interval for one in found if one.control.interval]
    called = sum(one.slower.interval is not None and one.slower.interval.low > 1 for one in found)
    held = sum(interval.low <= 1 <= interval.high for interval in controls)
    width = median(interval.high - interval.low for interval in controls)
    claim(f"latency: of {REPETITIONS} intervals of a file beside itself, those that hold 1", held, at_least=AT_LEAST)
    claim("latency: the median width of these intervals", width, at_most=0.04)
    slower = median(one.slower.ratio for one in found)
    what = f"latency: of {REPETITIONS} planted slow-downs of {PLANTED - 1:.0%}, those that are called"
    claim(what, called, at_least=AT_LEAST, median_ratio=slower)


def test_a_load_on_its_core_is_flagged(
    variants: dict[str, Variant], data: Dataset, tmp_path: Path, benchmark: BenchmarkFixture, claim: Claim
) -> None:
    """A busy program on each core while the third of five processes measures: most of that one's blocks are marked."""
    busy: list[subprocess.Popen[bytes]] = []

    def plant(task: str, done: int, total: int) -> None:
        if task == f"{job.LATENCY}-3" and not busy:
            for core in os.sched_getaffinity(0):
                command = f"import os; os.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
                busy.append(subprocess.Popen([sys.executable, "-c", command]))
        if task == f"{job.LATENCY}-4":
            for process in busy:
                process.kill()

    try:
        timing = benchmark.pedantic(
            measure, args=(tmp_path, {KIND: variants[KIND]}, data, LatencyPlan(), plant), rounds=1
        )
    finally:
        for process in busy:
            process.kill()
            process.wait()
    own = timing.blocks / timing.processes
    disturbed = [sum(block.process == process for block in timing.disturbed) / own for process in range(1, 6)]
    others = {"disturbed_by_process": disturbed, "reasons": timing.verdict.reasons}
    claim("latency: blocks beside a load on their core that are disturbed", disturbed[2], at_least=0.8, **others)
    assert "other programs" in str([block.disturbances for block in timing.disturbed if block.process == 3])


def test_the_workers_own_overhead(
    variants: dict[str, Variant], data: Dataset, benchmark: BenchmarkFixture, claim: Claim
) -> None:
    """A block's time per inference as the worker reports it is within 1 % of a bare loop's of nothing but invokes."""
    model = worker.load(variants[KIND].path(VARIANTS).read_bytes(), 1)
    prepared = model.quantize(data.inputs()[::10])
    warmup, _ = worker.warm_up(model, prepared, {"warmup_s": 0.5, "block_s": 0.04})
    block = {"block_s": 0.04, "inferences": 0, "lead_in": worker.LEAD_IN, "pause_s": 0.0}
    subject = worker.Subject(model, prepared, warmup, block)
    gauges = worker.Gauges([])

    def bare() -> float:
        count = len(subject.blocks[-1])
        begin = time.perf_counter()
        for _ in range(count):
            model.invoke()
        return (time.perf_counter() - begin) / count

    def turns() -> float:
        quotients = []
        for _ in range(200):
            subject.block(gauges)
            quotients.append(float(np.mean(subject.blocks[-1])) / bare())
        return median(quotients) - 1

    overhead = benchmark.pedantic(turns, rounds=1)
    claim("latency: a block's time beside a bare loop's, difference", abs(overhead), at_most=0.01)
