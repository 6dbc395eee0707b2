"""A sustained run: its curve, the level at which it settles, and when throttling began."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from harness.run.latency_plan import MAX_BUCKETS, MINUTE_S
from harness.run.latency_run import LatencyRun
from harness.run.worker import STATE
from harness.timing.figures import Bucket, OverTime
from harness.timing.machine_state import MIN_FREQUENCY, highest

TOLERANCE = 0.03  # by which a bucket may be off its plateau, and more on a noisy machine:
NOISE_TOLERANCE = 3.0  # standard deviations of a bucket's mean
MIN_PLATEAU = 0.2  # of the run
MAX_SAMPLES = 20_000  # that the intervals are made of: more only take time

Array = npt.NDArray[np.float64]


def sustained(run: LatencyRun, cell: str) -> tuple[OverTime, list[Array]]:
    """What became of a cell's latency, and the samples of its plateau by bucket; if it has none, of all buckets but the
    first."""
    samples, clock = run.times[cell].samples, run.column("clock_s")
    seconds = float(clock[-1, -1] - clock[0, 0])
    bucket_s = min(MINUTE_S, seconds / MAX_BUCKETS)
    whole = max(1, round(seconds / bucket_s))  # a short rest belongs to the last one
    places = np.minimum(((clock[:, 0] - clock[0, 0]) / bucket_s).astype(int), whole - 1)
    rows = [(number, places == number) for number in range(whole) if (places == number).any()]
    top = highest(run.column("frequency_hz"))
    buckets = tuple(_bucket(number * bucket_s, samples[row], run.state[row], top) for number, row in rows)
    # The mean, because a quota stalls few inferences for long, which moves no median.
    begin = plateau([bucket.mean for bucket in buckets])
    chosen = rows[len(rows) > 1 if begin is None else begin :]
    level = float(np.mean(samples[np.any([row for _, row in chosen], axis=0)]))
    every = -(-samples.size // MAX_SAMPLES)
    return OverTime(
        bucket_s=bucket_s,
        buckets=buckets,
        plateau_s=None if begin is None else buckets[begin].begin_s,
        slowdown=None if begin is None else level / buckets[0].mean,
        throttled_s=next((bucket.begin_s for bucket in buckets if bucket.throttled), None),
    ), [samples[row].ravel()[::every] for _, row in chosen]


def plateau(levels: Sequence[float]) -> int | None:
    """The first of the buckets that lie at the level of the last ones, never the run's very first. None if too few do.

    A single bucket off that level, between two that are on it, does not end the plateau.
    """
    logs = np.log(levels)
    noise = 1.4826 * float(np.median(np.abs(np.diff(logs)))) / np.sqrt(2) if len(logs) > 2 else 0.0
    tolerance = max(TOLERANCE, NOISE_TOLERANCE * noise)
    least = max(2, round(MIN_PLATEAU * len(logs)))
    level = float(np.median(logs[-least:]))
    near = np.abs(logs - level) <= tolerance
    begin = len(logs)
    while begin > 1 and (near[begin - 1] or (begin > 2 and near[begin - 2] and begin < len(logs))):
        begin -= 1
    return begin if len(logs) - begin >= least else None


def _bucket(begin_s: float, samples: Array, state: Array, top: float) -> Bucket:
    """state: [blocks, 3, STATE]. top: the highest frequency of the run."""
    readings = {
        name: column[np.isfinite(column)] for name, column in zip(STATE, state.reshape(-1, len(STATE)).T, strict=True)
    }
    frequency, temperature = readings["frequency_hz"], readings["temperature_c"]
    throttled, count = readings["throttled"], readings["throttle_count"]
    cpu_s, clock_s = (state[:, -1, STATE.index(name)] - state[:, 0, STATE.index(name)] for name in ("cpu_s", "clock_s"))
    signs = [
        *([bool((throttled > 0).any())] if throttled.size else []),
        *([bool(count[-1] > count[0])] if count.size else []),
        *([float(np.median(frequency)) < MIN_FREQUENCY * top] if frequency.size else []),
    ]
    return Bucket(
        begin_s=begin_s,
        mean=float(np.mean(samples)),
        core_share=float(cpu_s.sum() / clock_s.sum()),
        median=float(np.median(samples)),
        p90=float(np.quantile(samples, 0.9)),
        temperature_c=float(temperature.max()) if temperature.size else None,
        frequency_hz=float(np.median(frequency)) if frequency.size else None,
        throttled=any(signs) if signs else None,
    )
