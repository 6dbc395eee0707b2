"""How long an inference takes, from raw samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SAMPLES_FOR_P90 = 64  # MLPerf LoadGen's early stopping, 99 % confidence


@dataclass(frozen=True)
class Latency:
    """Seconds per inference, the input set and the output not yet read. p90: none below SAMPLES_FOR_P90 samples."""

    median: float
    p90: float | None
    load: float
    first: float
    samples: int


def summarise(samples: npt.NDArray[np.float64], load: float, first: float) -> Latency:
    """Figures of one variant's samples, in whatever shape. Raises ValueError where there is none."""
    if not samples.size:
        raise ValueError("no latency samples")
    p90 = float(np.quantile(samples, 0.9)) if samples.size >= SAMPLES_FOR_P90 else None
    return Latency(float(np.median(samples)), p90, load, first, samples.size)
