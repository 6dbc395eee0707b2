"""The statistics against known values, SciPy's own functions, and their promise: how often a bad model passes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from harness.core.outcome import Interval
from harness.judge import paired_tests

pairs = st.integers(1, 400).flatmap(
    lambda n: st.tuples(st.just(n), st.integers(0, n)).flatmap(
        lambda pair: st.tuples(st.just(pair[0]), st.just(pair[1]), st.integers(0, pair[0] - pair[1]))
    )
)
alphas = st.sampled_from([0.005, 0.025, 0.05])


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), alphas)
def test_shares_have_scipys_intervals(case: tuple[int, int], alpha: float) -> None:
    """Wilson's and the exact interval are those of scipy.stats.binomtest."""
    count, images = case
    for ours, method in ((paired_tests.wilson, "wilson"), (paired_tests.clopper_pearson, "exact")):
        theirs = binomtest(count, images).proportion_ci(1 - 2 * alpha, method=method)
        interval = ours(count, images, alpha)
        assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_binomial_test(regressions: int, improvements: int) -> None:
    """Exact and two-sided; five one-way changes prove nothing at 5 %, six do."""
    expected = binomtest(regressions, regressions + improvements).pvalue if regressions + improvements else 1.0
    assert paired_tests.mcnemar(regressions, improvements) == pytest.approx(expected, abs=1e-12)


def test_six_one_way_changes_are_the_fewest_that_mcnemar_sees() -> None:
    """FACTS: fewer than six cannot be told from chance at p < 0.05."""
    assert paired_tests.mcnemar(5, 0) == pytest.approx(0.0625)
    assert paired_tests.mcnemar(6, 0) == pytest.approx(0.03125)


@given(pairs, alphas)
@settings(max_examples=60, deadline=None)
def test_the_drop_lies_within_its_bounds(case: tuple[int, int, int], alpha: float) -> None:
    """Low <= observed <= high within -1..1; one more regression never lowers the upper bound."""
    images, regressions, improvements = case
    low = paired_tests.min_drop(regressions, improvements, images, alpha)
    high = paired_tests.max_drop(regressions, improvements, images, alpha)
    assert -1 <= low <= (regressions - improvements) / images <= high <= 1
    if regressions + improvements < images:
        assert paired_tests.max_drop(regressions + 1, improvements, images, alpha) >= high - 0.01 * (high - low)


@pytest.mark.parametrize("images", [50, 200, 2200])
def test_only_regressions_have_the_exact_binomial_bound(images: int) -> None:
    """Without improvements the worst case is that there are none: Clopper and Pearson's bound."""
    for regressions in (0, 1, 5):
        exact = paired_tests.clopper_pearson(regressions, images, 0.025).high
        assert paired_tests.max_drop(regressions, 0, images, 0.025) == pytest.approx(exact, rel=0.02)


def test_many_changes_have_tangos_interval() -> None:
    """Where hundreds of answers change, the exact bounds meet the asymptotic ones: drop -+ 1.96 standard errors."""
    regressions, improvements, images = 600, 400, 50_000
    drop = (regressions - improvements) / images
    error = np.sqrt(regressions + improvements - (regressions - improvements) ** 2 / images) / images
    high = paired_tests.max_drop(regressions, improvements, images, 0.025)
    assert (high - drop) / error == pytest.approx(1.96, abs=0.05)
    assert (drop - paired_tests.min_drop(regressions, improvements, images, 0.025)) / error == pytest.approx(
        1.96, abs=0.05
    )


@pytest.mark.parametrize(("regressions", "improvements"), [(1000, 1000), (1500, 500), (500, 1500), (2000, 0)])
def test_thousands_of_changes_have_the_same_interval_without_the_exact_sum(regressions: int, improvements: int) -> None:
    """Where the exact computation ends, the quick one is within 1 % of its width."""
    images = 100_000
    assert regressions + improvements == paired_tests.MAX_EXACT
    exact = paired_tests.max_drop(regressions, improvements, images, 0.025)
    quick = paired_tests.max_drop(regressions + 1, improvements, images, 0.025)
    drop = (regressions - improvements) / images
    assert quick - drop == pytest.approx(exact + 1 / images - drop, rel=0.01)


def pass_rate(images: int, drop: float, improved_share: float, margin: float, alpha: float) -> float:
    """The exact probability that the upper bound is within the margin, summed over all outcomes."""
    rate = 0.0
    for improvements in range(int(images * improved_share + 7 * np.sqrt(images * improved_share)) + 1):
        low, high = -1, min(images - improvements, int(images * (improved_share + margin)) + 30)
        while low < high:
            middle = (low + high + 1) // 2
            within = paired_tests.max_drop(middle, improvements, images, alpha) <= margin
            low, high = (middle, high) if within else (low, middle - 1)
        regressions = (improved_share + drop) / (1 - improved_share)
        rate += binom.pmf(improvements, images, improved_share) * binom.cdf(low, images - improvements, regressions)
    return float(rate)


@pytest.mark.parametrize("images", [370, 1000])
@pytest.mark.parametrize("improved_share", [0.0, 0.001, 0.01])
@pytest.mark.parametrize("margin", [0.005, 0.01])
def test_a_drop_beyond_the_margin_passes_in_at_most_alpha_of_all_test_sets(
    images: int, improved_share: float, margin: float
) -> None:
    """At the margin itself, where a bad model has its best chance; computed, not simulated."""
    assert pass_rate(images, margin, improved_share, margin, 0.025) <= 0.025


def test_tangos_own_bound_would_break_that_promise() -> None:
    """270 images without a change: its upper bound is below a point, but so come 6.6 % of sets with a drop of one."""
    z2 = 1.645**2
    assert z2 / (270 + z2) < 0.01
    assert 0.99**270 > 0.05
    assert paired_tests.max_drop(0, 0, 270, 0.05) > 0.01


@pytest.mark.parametrize(("share", "value"), [(0.02, 1.0), (0.2, 0.1), (1.0, 0.02)])
@pytest.mark.parametrize("images", [100, 361, 2200])
def test_a_mean_beyond_the_limit_passes_in_at_most_alpha_of_all_test_sets(
    images: int, share: float, value: float
) -> None:
    """A mean of 0.02, of few large values or of many small ones: the interval misses it on either side that seldom."""
    counts = np.arange(images + 1)
    probabilities = binom.pmf(counts, images, share)
    means = counts / images * value
    variances = counts * (images - counts) / images / (images - 1) * value**2
    intervals = [
        paired_tests.mean_interval(mean, variance, images, Interval(0, 1), 0.025)
        for mean, variance in zip(means, variances, strict=True)
    ]
    for missed in ([i.high < 0.02 for i in intervals], [i.low > 0.02 + 1e-12 for i in intervals]):
        assert probabilities[missed].sum() <= 0.025
    student = means + 1.96 * np.sqrt(variances / images)
    if share == 0.02 and images < 1000:  # where it takes many more to be right
        assert probabilities[student < 0.02].sum() > 0.04


def test_the_interval_of_a_mean_stays_within_its_bounds() -> None:
    """Of one image nothing is known."""
    assert paired_tests.mean_interval(0.1, 0.0, 1, Interval(-0.5, 0.5), 0.025) == Interval(-0.5, 0.5)
    wide = paired_tests.mean_interval(0.1, 0.1, 3, Interval(-0.5, 0.5), 0.025)
    assert (wide.low, wide.high) == (-0.5, 0.5)


def test_the_number_of_images_that_would_decide() -> None:
    """No change: 3.69 / margin; a rate at the very margin is decided by no number."""
    needed = paired_tests.images_to_decide(30, lambda f: paired_tests.max_drop(0, 0, round(30 * f), 0.025) <= 0.005)
    assert needed is not None
    assert 738 <= needed <= 770
    assert paired_tests.images_to_decide(30, lambda factor: False) is None
