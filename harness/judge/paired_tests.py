"""What paired answers prove about a drop in accuracy: an exact interval, McNemar's test, Wilson's interval.

A pair is an image that both models answered: *broken* where only the reference is right, *fixed* where only the variant
is. The drop is their difference as a share of the images. Its bounds invert an exact test: outcomes are ordered by
Tango's score statistic (Stat Med 17:891, 1998), and their probability is the largest over the share of fixed images,
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

NUISANCE_ERROR = 1e-4  # part of alpha; added to every p-value
NUISANCE_POINTS = 15
RESOLUTION = 1e-3  # of a bound, relative to its distance from the estimate
MOST_IMAGES = 10_000_000  # the search for a number of images that would decide ends there

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


def mcnemar(broken: int, fixed: int) -> float:
    """The exact two-sided p-value that answers break and mend equally often."""
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(broken, fixed), broken + fixed, 0.5))) if broken + fixed else 1.0


def largest_drop(broken: int, fixed: int, images: int, alpha: float) -> float:
    """The upper bound of the drop: a larger one would show a result as good as this with probability < alpha."""
    return _bound(int(broken), int(fixed), int(images), float(alpha))


def smallest_drop(broken: int, fixed: int, images: int, alpha: float) -> float:
    """The lower bound of the drop."""
    return -largest_drop(fixed, broken, images, alpha)


def p_value(broken: int, fixed: int, images: int, drop: float) -> float:
    """The largest probability of a result at least this good where the true drop is `drop` or more."""
    return _p_value(int(broken), int(fixed), int(images), float(drop))


def images_to_decide(images: int, decided: Callable[[float], bool]) -> int | None:
    """About how many images would decide what these do not, were their shares the true ones.

    decided: whether counts larger by a factor would. None: not with MOST_IMAGES either.
    """
    low, high = 1.0, 2.0
    while not decided(high):
        if high * images > MOST_IMAGES:
            return None
        low, high = high, 2 * high
    while (high - low) * images > max(1.0, 0.01 * low * images):
        middle = (low + high) / 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return _round_up(high * images)


@lru_cache(maxsize=4096)
def _bound(broken: int, fixed: int, images: int, alpha: float) -> float:
    low, step = (broken - fixed) / images, 4 / images
    while low + step < 1 and _p_value(broken, fixed, images, low + step) > alpha:
        low, step = low + step, 2 * step
    high = min(low + step, 1.0)
    while high - low > RESOLUTION * step:
        middle = (low + high) / 2
        low, high = (middle, high) if _p_value(broken, fixed, images, middle) > alpha else (low, middle)
    return high


def _p_value(broken: int, fixed: int, images: int, drop: float) -> float:
    from scipy.special import bdtr, gammaln, xlog1py, xlogy

    limits = clopper_pearson(fixed, images, NUISANCE_ERROR / 2)
    lowest, highest = max(limits.low, -drop, 0.0), min(limits.high, (1 - drop) / 2)
    shares = np.linspace(math.sqrt(lowest), math.sqrt(max(highest, lowest)), NUISANCE_POINTS) ** 2
    spread = 7 * math.sqrt(images * shares[-1]) + 7
    first, last = max(0, int(images * shares[0] - spread)), min(images, int(images * shares[-1] + spread))
    fixes = np.arange(first, last + 1, dtype=np.float64)
    most_broken = _boundary(float(_score(broken, fixed, images, drop)), fixes, images, drop)
    fixes, most_broken = fixes[most_broken >= 0], most_broken[most_broken >= 0]
    shares = shares[:, np.newaxis]
    ways = gammaln(images + 1) - gammaln(fixes + 1) - gammaln(images - fixes + 1)
    densities = np.exp(ways + xlogy(fixes, shares) + xlog1py(images - fixes, -shares))
    breaks = np.clip((shares + drop) / np.maximum(1 - shares, 1e-300), 0, 1)
    probabilities = (densities * bdtr(most_broken, (images - fixes).astype(np.int64), breaks)).sum(axis=1)
    return float(probabilities.max()) + NUISANCE_ERROR


def _score(broken: Array | float, fixed: Array | float, images: int, drop: float) -> Array:
    """Tango's statistic: the drop's distance from `drop` in standard errors, as that null hypothesis has them."""
    linear = broken + fixed + drop * (broken - fixed - 2.0 * images)
    root = np.sqrt(np.maximum(linear**2 + 8.0 * images * fixed * drop * (1 - drop), 0))
    share = np.maximum((linear + root) / (4.0 * images), max(0.0, -drop))  # of fixed images, most likely under the null
    variance = images * (2 * share + drop * (1 - drop))
    distance = np.asarray(broken - fixed - images * drop, np.float64)
    return np.asarray(distance / np.sqrt(np.maximum(variance, 1e-12)), np.float64)


def _boundary(score: float, fixes: Array, images: int, drop: float) -> Array:
    """For each number of fixed images the most broken ones at which the result is still as good; -1: none are."""
    low, high = np.full_like(fixes, -1.0), images - fixes
    while (low < high).any():
        middle = np.ceil((low + high) / 2)
        good = _score(middle, fixes, images, drop) <= score + 1e-9
        low, high = np.where(good, middle, low), np.where(good, high, middle - 1)
    return low


def _round_up(images: float) -> int:
    """To two digits."""
    digit: int = 10 ** max(0, math.floor(math.log10(images)) - 1)
    return math.ceil(images / digit) * digit
