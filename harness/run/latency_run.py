"""What one process measured of latency: a worker's arrays by name, checked once, then by what they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast, get_args

import numpy as np
import numpy.typing as npt

from harness.core.errors import SetupError
from harness.core.npz import Array
from harness.run.latency_plan import Mode
from harness.run.worker import CONTROL, STATE

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Times:
    """Seconds of one cell: samples [its blocks, inferences]; load: until its tensors were allocated; first: the first
    inference. settled: whether the warm-up ended stable."""

    samples: Floats
    load: float
    first: float
    settled: bool


@dataclass(frozen=True)
class LatencyRun:
    """times: by cell, in the order in which they were loaded, CONTROL among them: a second instance of a cell's file.

    order: whose each block was. state [blocks, before / during / after, STATE]. memory: peak and steady resident bytes
    that the first of them added. cached: before a cold start, the share of its file that was in memory; NaN: unknown.
    energy_j: joules of each block, NaN if they could not be read, and what read them or why nothing did.
    """

    times: Mapping[str, Times]
    control: str  # the cell, empty if there is no control
    order: tuple[str, ...]
    state: Floats
    memory: Floats
    cores: tuple[int, ...]
    governor: str
    mode: Mode = "steady"
    cached: float = math.nan
    energy_j: Floats | None = None
    energy_source: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        return tuple(name for name in self.times if name != CONTROL)

    @property
    def first_loaded(self) -> str:
        """The cell whose file was loaded first, alone in memory."""
        name = next(iter(self.times))
        return self.control if name == CONTROL else name

    def column(self, name: str) -> Floats:
        """One source's readings, [blocks, 3]; NaN: unavailable."""
        return np.asarray(self.state[:, :, STATE.index(name)])


def latency_run(arrays: Mapping[str, Array], where: str) -> LatencyRun:
    """A run of the arrays that a worker's `latency` gives. Raises SetupError if they are not what they must be."""
    try:
        names = [str(name) for name in arrays["kinds"]]
        run = LatencyRun(
            times={name: _times(name, arrays) for name in names},
            control=str(arrays["control"]),
            order=tuple(names[index] for index in arrays["order"].tolist()),
            state=arrays["state"].astype(np.float64),
            memory=arrays["memory"].astype(np.float64),
            cores=tuple(arrays["cores"].tolist()),
            governor=str(arrays["governor"]),
            mode=_mode(str(arrays.get("mode", "steady"))),
            cached=float(arrays.get("cached", math.nan)),
            energy_j=arrays["energy_j"].astype(np.float64) if "energy_j" in arrays else None,
            energy_source=str(arrays.get("energy_source", "")),
        )
        if run.energy_j is not None and run.energy_j.shape != (len(run.order),):
            raise ValueError(f"energy of shape {run.energy_j.shape}")
        if not run.cells or run.state.shape != (len(run.order), 3, len(STATE)) or run.memory.shape != (2,):
            raise ValueError(f"{len(run.order)} blocks and states of shape {run.state.shape}")
        for name, times in run.times.items():
            if len(times.samples) != run.order.count(name) or not times.samples.size or not (times.samples > 0).all():
                raise ValueError(f"{name}: {len(times.samples)} blocks of samples for {run.order.count(name)}")
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise SetupError(f"{where}: damaged latency ({error}); run again") from error
    return run


def _mode(name: str) -> Mode:
    for mode in get_args(Mode):
        if mode == name:
            return cast("Mode", mode)
    raise ValueError(f"mode {name!r}")


def _times(name: str, arrays: Mapping[str, Array]) -> Times:
    samples = arrays[f"{name}.samples"]
    if samples.ndim != 2 or samples.dtype.kind != "f":
        raise ValueError(f"{name}.samples: {samples.dtype} of shape {samples.shape}")
    load, first = float(arrays[f"{name}.load"]), float(arrays[f"{name}.first"])
    return Times(samples.astype(np.float64), load, first, bool(arrays[f"{name}.settled"]))
