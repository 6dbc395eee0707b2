"""Joules of an inference, from blocks of all variants in turn."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from harness.run.latency_run import LatencyRun
from harness.timing import bootstrap
from harness.timing.figures import Energy

Array = npt.NDArray[np.float64]


def energy(run: LatencyRun, cell: str, base: str) -> Energy:
    """A cell's, and beside that of the base. Nothing but the reason if it could not be read, or not finely enough."""
    joules = _of_inferences(run, cell)
    if joules is None:
        return Energy(None, None, None, run.energy_source)
    if not (joules > 0).all():
        coarse = f"unavailable: {run.energy_source} does not move within a block; harness check --energy 60s"
        return Energy(None, None, None, coarse)
    value, interval = bootstrap.quantile([joules], 0.5)
    seconds = run.column("clock_s")[_blocks(run, cell)]
    drawn = run.energy_j[_blocks(run, cell)] if run.energy_j is not None else joules
    watts = float(np.median(drawn / (seconds[:, -1] - seconds[:, 0])))
    beside = _of_inferences(run, base) if base in run.times and base != cell else None
    if beside is None or not (beside > 0).all():
        return Energy(value, interval, watts, run.energy_source)
    ratio, ratio_interval = bootstrap.ratio([(joules, beside)])
    return Energy(value, interval, watts, run.energy_source, base, ratio, ratio_interval)


def _of_inferences(run: LatencyRun, cell: str) -> Array | None:
    """Joules of an inference in each of a cell's blocks, [blocks, 1]. None if they could not be read."""
    if run.energy_j is None or not np.isfinite(run.energy_j).all():
        return None
    return np.asarray(run.energy_j[_blocks(run, cell)][:, np.newaxis] / run.times[cell].samples.shape[1])


def _blocks(run: LatencyRun, cell: str) -> npt.NDArray[np.bool_]:
    return np.array([name == cell for name in run.order])
