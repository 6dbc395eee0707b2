"""Intervals of latency figures by bootstrap over processes and blocks, and what is odd about the samples.

Inferences of one block share the machine's mood, blocks of one process its memory layout: resampling single
inferences would call noise certain. Processes are drawn first, then blocks within each. Few processes make percentile
intervals too narrow, so their ends are moved out as Student's t is wider than the normal distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from harness.core.outcome import Interval

REPLICATES = 1000
ENDS = (0.025, 0.975)
NORMAL = NormalDist().inv_cdf(ENDS[1])
CHUNK = 2_000_000  # weights held at once

MAX_DRIFT = 0.03
MAX_SPREAD = 0.05
MIN_MODE_SHARE, MIN_MODE_GAP, MIN_MODE_DISTANCE = 0.1, 0.05, 4.0
OUTLIER = 1.5  # times the median, as pyperf has it

Array = npt.NDArray[np.float64]


def quantile(processes: Sequence[Sequence[Array] | Array], share: float) -> tuple[float, Interval | None]:
    """A quantile of samples pooled over processes, each [blocks, inferences] or blocks of unequal length, and its
    interval. None for one block."""
    values = np.concatenate([row for samples in processes for row in samples])
    estimate = float(np.quantile(values, share))
    counts = [len(samples) for samples in processes]
    if sum(counts) < 2:
        return estimate, None
    block = np.repeat(np.arange(sum(counts)), [len(row) for samples in processes for row in samples])
    rising = values.argsort()
    values, block = values[rising], block[rising]
    drawn = _draw(counts)
    quantiles = []
    for part in np.array_split(drawn, math.ceil(len(drawn) * len(values) / CHUNK)):
        reached = part[:, block].cumsum(axis=1)
        quantiles.append(values[(reached >= share * reached[:, -1:]).argmax(axis=1)])
    return estimate, _interval(estimate, np.concatenate(quantiles), len(counts))


def ratio(processes: Sequence[tuple[Array, Array]]) -> tuple[float, Interval | None]:
    """Time of one cell / time of another, from blocks measured side by side, and its interval. None for one round.

    processes: the samples [blocks, inferences] of both in each process, with two blocks a round. The medians of a
    round's blocks are averaged; the figure is the median over all rounds of all processes, which a few disturbed ones
    do not move.
    """
    logs = [_round_logs(upper) - _round_logs(lower) for upper, lower in processes]
    rounds = min(len(part) for part in logs)
    quotients = np.array([part[:rounds] for part in logs])
    estimate = math.exp(float(np.median(quotients)))
    if quotients.size < 2:
        return estimate, None
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(quotients), size=(REPLICATES, len(quotients), 1))
    within = rng.integers(rounds, size=(REPLICATES, len(quotients), rounds))
    replicates = np.exp(np.median(quotients[drawn, within], axis=(1, 2)))
    return estimate, _interval(estimate, replicates, len(quotients))


def remarks(processes: Sequence[Array]) -> tuple[str, ...]:
    """Drift within the processes, differences between them, several modes and outliers, each in words."""
    values = np.concatenate([samples.ravel() for samples in processes])
    median = float(np.median(values))
    medians = [float(np.median(samples)) for samples in processes]
    texts = []
    if change := _drift(processes):
        texts.append(f"drifts: {abs(change):.1%} {'slower' if change > 0 else 'faster'} at the end of a process")
    if max(medians) > (1 + MAX_SPREAD) * min(medians):
        texts.append(f"processes differ: medians of {_ms(min(medians))} to {_ms(max(medians))}")
    if modes := _modes(values):
        low, high, share = modes
        texts.append(f"two modes: {_ms(low)} and, in {share:.0%} of the inferences, {_ms(high)}")
    if late := int((values > OUTLIER * median).sum()):
        texts.append(
            f"outliers: {late} of {values.size} inferences took over {OUTLIER} times the median, "
            f"the longest {_ms(float(values.max()))}"
        )
    return tuple(texts)


def _draw(counts: Sequence[int]) -> npt.NDArray[np.int64]:
    """How often each block is drawn, [REPLICATES, blocks]: processes with replacement, then blocks within each."""
    rng = np.random.default_rng(0)
    chosen = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=REPLICATES)
    parts = [rng.multinomial(times * n, np.full(n, 1 / n)) for times, n in zip(chosen.T, counts, strict=True)]
    return np.concatenate(parts, axis=1)


def _interval(estimate: float, replicates: Array, processes: int) -> Interval:
    wider = 1.0
    if processes > 1:
        wider = math.sqrt(processes / (processes - 1)) * student(processes - 1) / NORMAL
    low, high = (estimate * (float(end) / estimate) ** wider for end in np.quantile(replicates, ENDS))
    return Interval(low, high)


@cache
def student(freedom: int) -> float:
    """The upper end of Student's t, by degrees of freedom. In plain Python: a 32-bit Raspberry Pi has no SciPy."""
    low, high = NORMAL, 13.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if _student_within(middle, freedom) > ENDS[1] - ENDS[0] else (middle, high)
    return high


def _student_within(t: float, freedom: int) -> float:
    """The probability that Student's |t| is smaller (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle, odd = math.atan(t / math.sqrt(freedom)), freedom % 2
    term = math.cos(angle) if odd else 1.0
    terms = 0.0
    for step in range(1, freedom // 2 + 1):
        terms += term
        term *= math.cos(angle) ** 2 * (2 * step - 1 + odd) / (2 * step + odd)
    inside = math.sin(angle) * terms
    return 2 / math.pi * (angle + inside) if odd else inside


def _round_logs(samples: Array) -> Array:
    blocks = np.log(np.median(samples, axis=1))
    whole = len(blocks) // 2 * 2
    return np.asarray(blocks[:whole].reshape(-1, 2).mean(axis=1))


def _drift(processes: Sequence[Array]) -> float | None:
    """The last third's median against the first's, where it is large and every process agrees on its sign."""
    changes = []
    for samples in processes:
        third = len(samples) // 3
        if not third:
            return None
        changes.append(float(np.median(samples[-third:]) / np.median(samples[:third])) - 1)
    change = float(np.median(changes))
    agreed = len({value > 0 for value in changes}) == 1
    return change if agreed and abs(change) > MAX_DRIFT else None


def _modes(values: Array) -> tuple[float, float, float] | None:
    """Medians of the lower and the upper mode and the share of the upper, where the best split of the logarithms in
    two leaves parts that stand well apart (Ashman's D)."""
    logs = np.sort(np.log(values))
    count = np.arange(1, len(logs))
    total, squares = logs.cumsum(), (logs**2).cumsum()
    below, above = total[:-1] / count, (total[-1] - total[:-1]) / (len(logs) - count)
    within = squares[-1] - count * below**2 - (len(logs) - count) * above**2
    least = max(2, math.ceil(MIN_MODE_SHARE * len(logs)))
    candidates = slice(least - 1, len(logs) - least)
    if not within[candidates].size:
        return None
    cut = least + int(within[candidates].argmin())
    low, high = logs[:cut], logs[cut:]
    gap = float(np.median(high) - np.median(low))
    spread = math.sqrt((_spread(low) ** 2 + _spread(high) ** 2) / 2)
    if gap < MIN_MODE_GAP or gap < MIN_MODE_DISTANCE * spread:
        return None
    return math.exp(float(np.median(low))), math.exp(float(np.median(high))), len(high) / len(logs)


def _spread(logs: Array) -> float:
    """A standard deviation that single outliers do not move."""
    return 1.4826 * float(np.median(np.abs(logs - np.median(logs))))


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"
