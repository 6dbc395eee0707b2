"""Other programs' latency of a file beside ours, turn by turn: litert-benchmark, TensorFlow's benchmark_model."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converters.manifest import Variant
from harness import check, job, worker
from harness.dataset import Dataset
from harness.errors import SetupError
from harness.job import LatencyPlan

LITERT = "litert-benchmark"
RUNS, WARM_UP_RUNS, WARM_UP_S = 300, 100, 0.5
TIMEOUT_S = 600
MEDIAN, MEAN = "median", "mean"
STATISTICS = ((MEDIAN, r"\bmedian=([\d.e+]+)"), (MEAN, r"Inference \(avg\): ([\d.e+]+)"), (MEAN, r"\bavg=([\d.e+]+)"))


@dataclass(frozen=True)
class Turn:
    """Seconds of one inference, both measured within seconds of each other. statistic: median or mean, of both."""

    ours: float
    theirs: float
    statistic: str

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs


def compare(peer: str, models: Path, variant: Variant, data: Dataset, threads: int, turns: int) -> Iterator[Turn]:
    """Ours and a peer's, now the one first and now the other, in fresh processes on the same cores.

    peer: LITERT, or the path of a benchmark_model. Raises SetupError where either fails.
    """
    for turn in range(turns):
        if turn % 2:
            theirs, statistic = _theirs(peer, variant.path(models), threads)
            ours = _ours(models, variant, data, threads)
        else:
            ours = _ours(models, variant, data, threads)
            theirs, statistic = _theirs(peer, variant.path(models), threads)
        yield Turn(ours[statistic], theirs, statistic)


def _ours(models: Path, variant: Variant, data: Dataset, threads: int) -> dict[str, float]:
    plan = LatencyPlan(
        processes=1, turns=1, warmup_s=WARM_UP_S, block_s=0.1, least_samples=RUNS, threads=threads, alone=True
    )
    with tempfile.TemporaryDirectory(prefix="harness-peer-") as folder:
        written = job.write_latency(Path(folder), models, {variant.kind: variant}, data, plan)
        outputs = check.run(written, lambda *_: None)
    for failure in outputs.failures.values():
        raise SetupError(f"{variant.file}: {failure.reasons[0]}")
    (result,) = outputs.results.values()
    samples = result.arrays[f"{variant.kind}.samples"]
    return {MEDIAN: float(np.median(samples)), MEAN: float(samples.mean())}


def _theirs(peer: str, path: Path, threads: int) -> tuple[float, str]:
    """Seconds, and which statistic they are."""
    if peer != LITERT:
        model: dict[str, object] = {"graph": path, "num_threads": threads, "use_xnnpack": "true"}
        length = {"num_runs": RUNS, "min_secs": 1, "warmup_runs": WARM_UP_RUNS, "warmup_min_secs": WARM_UP_S}
        return parse(_run(peer, model | length, threads), peer)
    beside = Path(sys.executable).with_name(LITERT)
    with tempfile.TemporaryDirectory(prefix="harness-peer-") as folder:
        file = Path(folder) / "result.json"
        settings: dict[str, object] = {
            "num_runs": RUNS,
            "warmup_runs": WARM_UP_RUNS,
            "num_threads": threads,
            "result_json": file,
        }
        _run(str(beside) if beside.exists() else LITERT, {"model": path} | settings, threads)
        return json.loads(file.read_text())["latency"]["median_ms"] / 1e3, MEDIAN


def parse(shown: str, peer: str) -> tuple[float, str]:
    """Seconds and statistic of what benchmark_model prints, in microseconds; its median where it gives one.

    Raises SetupError where neither is there.
    """
    for statistic, pattern in STATISTICS:
        if found := re.findall(pattern, shown):
            return float(found[-1]) / 1e6, statistic
    last = shown.strip().rpartition("\n")[2]
    raise SetupError(
        f"{peer}: expected 'Inference (avg)' in what it prints, got {last[:100]!r}; is it benchmark_model?"
    )


def _run(program: str, settings: dict[str, object], threads: int) -> str:
    """What a program prints, bound to the cores that our worker takes. Raises SetupError."""
    if not shutil.which(program):
        raise SetupError(f"{program}: no such program, or not executable; expected the path of benchmark_model")
    command = [program, *(f"--{name}={value}" for name, value in settings.items())]
    pinned = [sys.executable, "-c", PINNED, str(Path(worker.__file__).parent), str(threads), *command]
    try:
        done = subprocess.run(pinned, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"{program}: no result within {TIMEOUT_S} s") from error
    shown = done.stdout + done.stderr
    if done.returncode:
        raise SetupError(f"{program}: exit code {done.returncode}: {shown.strip().rpartition(chr(10))[2][:200]}")
    return shown


PINNED = """
import os, sys
sys.path.insert(0, sys.argv[1])
import worker
worker.pin(int(sys.argv[2]))
os.execvp(sys.argv[3], sys.argv[3:])
"""
