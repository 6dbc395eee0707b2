"""Latency by the harness and by litert-benchmark, in turn."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.artifacts import manifest
from harness.artifacts.manifest import Variant
from harness.core import cores
from harness.core.errors import SetupError
from harness.core.progress import Progress
from harness.images import dataset
from harness.images.dataset import Dataset
from harness.run import execute, job, worker
from harness.run.latency_plan import LatencyPlan
from harness.run.latency_run import latency_run

RUNS, WARM_UP_RUNS, WARM_UP_S = 300, 100, 0.5
TIMEOUT_S = 600
PINNED = """
import sys
sys.path.insert(0, sys.argv[1])
import worker
del sys.path[0]  # its folder has modules named like the standard library's
worker.pin(int(sys.argv[2]))
sys.argv = ["litert-benchmark", *sys.argv[3:]]
from ai_edge_litert.tools.benchmark_litert_model import main
main()
"""


@dataclass(frozen=True)
class Turn:
    """Median seconds of an inference, by both, measured within seconds of each other."""

    ours: float
    theirs: float

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs


@dataclass(frozen=True)
class Comparison:
    """All turns of one variant."""

    kind: str
    turns: tuple[Turn, ...]


def variants(
    models: Path,
    kinds: Sequence[str] | None,
    folder: Path,
    threads: int,
    turns: int,
    progress: Progress,
    *,
    skip_bad: bool = False,
) -> list[Comparison]:
    """Compare variants of a folder, all if none are named, on the images of another folder. Raises SetupError."""
    if threads > (available := cores.usable()):
        raise SetupError(f"--threads {threads}: expected 1 to {available}, the cores that this process may use")
    known = manifest.read(models)
    chosen = [manifest.find(known, kind, models) for kind in kinds or known]
    data = dataset.load(folder, manifest.spec_of(known, models), skip_bad=skip_bad)
    results = []
    for variant in chosen:
        done: list[Turn] = []
        for turn in compare(models, variant, data, threads, turns):
            done.append(turn)
            progress(f"{variant.kind} beside litert-benchmark", len(done), turns)
        results.append(Comparison(variant.kind, tuple(done)))
    return results


def compare(models: Path, variant: Variant, data: Dataset, threads: int, turns: int) -> Iterator[Turn]:
    """Measure by both, the first changing from turn to turn, in fresh processes on the same cores.

    Raises SetupError if either fails.
    """
    for turn in range(turns):
        if turn % 2:
            theirs = _theirs(variant.path(models), threads)
            yield Turn(_ours(models, variant, data, threads), theirs)
        else:
            ours = _ours(models, variant, data, threads)
            yield Turn(ours, _theirs(variant.path(models), threads))


def _ours(models: Path, variant: Variant, data: Dataset, threads: int) -> float:
    plan = LatencyPlan(
        processes=1, turns=1, warmup_s=WARM_UP_S, block_s=0.1, min_samples=RUNS, threads=threads, alone=True
    )
    with tempfile.TemporaryDirectory(prefix="harness-peer-") as folder:
        written = job.write_latency(Path(folder), {variant.kind: variant.path(models).read_bytes()}, data, plan)
        outputs = execute.run(written, lambda *_: None)
    for failure in outputs.failures.values():
        raise SetupError(f"{variant.file}: {failure.reasons[0]}")
    (result,) = outputs.results.values()
    return float(np.median(latency_run(result.arrays, variant.kind).times[variant.kind].samples))


def _theirs(path: Path, threads: int) -> float:
    with tempfile.TemporaryDirectory(prefix="harness-peer-") as folder:
        file = Path(folder) / "result.json"
        flags = [f"--model={path}", f"--num_runs={RUNS}", f"--warmup_runs={WARM_UP_RUNS}", f"--num_threads={threads}"]
        command = [sys.executable, "-c", PINNED, str(Path(worker.__file__).parent), str(threads), *flags]
        try:
            done = subprocess.run(
                [*command, f"--result_json={file}"], capture_output=True, text=True, timeout=TIMEOUT_S
            )
            return float(json.loads(file.read_text())["latency"]["median_ms"]) / 1e3
        except subprocess.TimeoutExpired as error:
            raise SetupError(f"litert-benchmark: no result within {TIMEOUT_S} s") from error
        except (OSError, ValueError, KeyError) as error:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise SetupError(f"litert-benchmark failed ({last}); expected ai-edge-litert 2.3 with its tools") from error
