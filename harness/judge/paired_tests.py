"""What paired predictions prove: exact intervals of a drop in accuracy, of shares and of means, McNemar's test.

A pair is an image that both models answered: a regression if only the reference is right, an improvement if only the
variant is. The drop is their difference as a share of the images. Its bounds invert an exact test: outcomes are ordered
by Tango's score statistic (Stat Med 17:891, 1998), and their probability is the largest over the share of improvements,
which is unknown, within limits that hold it with probability 1 - NUISANCE_ERROR (Berger and Boos, JASA 89:1012, 1994).
Tango's own bounds are too narrow where few answers change, which is where a gate lives: with no change on 270 images
they certify a drop of one point, which a model that lost one point passes in 6.6 % of such sets instead of 5 %.

Needs SciPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from harness.core.outcome import Interval

NUISANCE_ERROR = 1e-4  # at most, and 1 % of alpha; added to every p-value
NUISANCE_POINTS = 15
RESOLUTION = 1e-3  # of a bound, relative to its distance from the estimate
MAX_EXACT = 2000  # changed answers; of more, the score statistic itself is as good, and quick
MAX_IMAGES = 10_000_000  # the search for a number of images that would decide ends there

Array = npt.NDArray[np.float64]


def wilson(count: int, images: int, alpha: float) -> Interval:
    """Wilson's score interval of a share (JASA 22:209, 1927)."""
    from scipy.special import ndtri

    z2 = float(ndtri(alpha)) ** 2
    centre, half = count + z2 / 2, math.sqrt(z2 * (count * (images - count) / images + z2 / 4))
    return Interval(max(0.0, (centre - half) / (images + z2)), min(1.0, (centre + half) / (images + z2)))


def clopper_pearson(count: int, images: int, alpha: float) -> Interval:
    """The exact interval of a share."""
    from scipy.special import betaincinv

    low = float(betaincinv(count, images - count + 1, alpha)) if count else 0.0
    high = float(betaincinv(count + 1, images - count, 1 - alpha)) if count < images else 1.0
    return Interval(low, high)


def mean_interval(mean: float, variance: float, images: int, bounds: Interval, alpha: float) -> Interval:
    """The interval of a mean of values within bounds, whatever their distribution, by their empirical variance.

    The empirical Bernstein inequality (Maurer and Pontil, COLT 2009, theorem 4). Student's interval is too narrow where
    a few rare images make the mean: 361 images of which 2 % differ by 1 pass a limit of 0.02 in 7 % of sets at 2.5 %.
    """
    if images < 2:
        return bounds
    error = math.log(2 / alpha)
    half = math.sqrt(2 * variance * error / images) + 7 * (bounds.high - bounds.low) * error / (3 * (images - 1))
    return Interval(max(bounds.low, mean - half), min(bounds.high, mean + half))


def mcnemar(regressions: int, improvements: int) -> float:
    """The exact two-sided p-value that regressions and improvements are equally frequent."""
    from scipy.special import bdtr

    changed = regressions + improvements
    return min(1.0, 2 * float(bdtr(min(regressions, improvements), changed, 0.5))) if changed else 1.0


def max_drop(regressions: int, improvements: int, images: int, alpha: float) -> float:
    """The upper bound of the drop: a larger one would show a result as good as this with probability < alpha."""
    return _bound(int(regressions), int(improvements), int(images), float(alpha))


def min_drop(regressions: int, improvements: int, images: int, alpha: float) -> float:
    """The lower bound of the drop."""
    return -max_drop(improvements, regressions, images, alpha)


def images_to_decide(images: int, decided: Callable[[float], bool]) -> int | None:
    """About how many images would decide what these do not, if their shares are the true ones.

    decided: whether counts larger by a factor would. None if MAX_IMAGES would not either.
    """
    low, high = 1.0, 2.0
    while not decided(high):
        if high * images > MAX_IMAGES:
            return None
        low, high = high, 2 * high
    while (high - low) * images > max(1.0, 0.01 * low * images):
        middle = (low + high) / 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return _round_up(high * images)


@lru_cache(maxsize=4096)
def _bound(regressions: int, improvements: int, images: int, alpha: float) -> float:
    def likely(drop: float) -> bool:
        return _p_value(regressions, improvements, images, drop, min(NUISANCE_ERROR, alpha / 100)) > alpha

    low, step = (regressions - improvements) / images, 4 / images
    while low + step < 1 and likely(low + step):
        low, step = low + step, 2 * step
    high = min(low + step, 1.0)
    while high - low > RESOLUTION * step:
        middle = (low + high) / 2
        low, high = (middle, high) if likely(middle) else (low, middle)
    return high


def _p_value(regressions: int, improvements: int, images: int, drop: float, nuisance_error: float) -> float:
    from scipy.special import bdtr, gammaln, ndtr, xlog1py, xlogy

    if regressions + improvements > MAX_EXACT:
        return float(ndtr(_score(regressions, improvements, images, drop)))
    limits = clopper_pearson(improvements, images, nuisance_error / 2)
    lowest, highest = max(limits.low, -drop, 0.0), min(limits.high, (1 - drop) / 2)
    shares = np.linspace(math.sqrt(lowest), math.sqrt(max(highest, lowest)), NUISANCE_POINTS) ** 2
    spread = 7 * math.sqrt(images * shares[-1]) + 7
    first, last = max(0, int(images * shares[0] - spread)), min(images, int(images * shares[-1] + spread))
    counts = np.arange(first, last + 1, dtype=np.float64)
    max_regressions = _boundary(float(_score(regressions, improvements, images, drop)), counts, images, drop)
    counts, max_regressions = counts[max_regressions >= 0], max_regressions[max_regressions >= 0]
    shares = shares[:, np.newaxis]
    ways = gammaln(images + 1) - gammaln(counts + 1) - gammaln(images - counts + 1)
    densities = np.exp(ways + xlogy(counts, shares) + xlog1py(images - counts, -shares))
    rates = np.clip((shares + drop) / np.maximum(1 - shares, 1e-300), 0, 1)
    probabilities = (densities * bdtr(max_regressions, (images - counts).astype(np.int64), rates)).sum(axis=1)
    return float(probabilities.max()) + nuisance_error


def _score(regressions: Array | float, improvements: Array | float, images: int, drop: float) -> Array:
    """Tango's statistic: the drop's distance from `drop` in standard errors, as that null hypothesis has them."""
    linear = regressions + improvements + drop * (regressions - improvements - 2.0 * images)
    root = np.sqrt(np.maximum(linear**2 + 8.0 * images * improvements * drop * (1 - drop), 0))
    share = np.maximum((linear + root) / (4.0 * images), max(0.0, -drop))  # of improvements, most likely under the null
    variance = images * (2 * share + drop * (1 - drop))
    distance = np.asarray(regressions - improvements - images * drop, np.float64)
    return np.asarray(distance / np.sqrt(np.maximum(variance, 1e-12)), np.float64)


def _boundary(score: float, counts: Array, images: int, drop: float) -> Array:
    """For each number of improvements the most regressions with which the result is still as good. -1 if none."""
    low, high = np.full_like(counts, -1.0), images - counts
    while (low < high).any():
        middle = np.ceil((low + high) / 2)
        good = _score(middle, counts, images, drop) <= score + 1e-9
        low, high = np.where(good, middle, low), np.where(good, high, middle - 1)
    return low


def _round_up(images: float) -> int:
    """To two digits."""
    digit: int = 10 ** max(0, math.floor(math.log10(images)) - 1)
    return math.ceil(images / digit) * digit
