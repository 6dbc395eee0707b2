"""The statistics against known values, SciPy's own functions, and their promise: how often a bad model passes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

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
def test_mcnemar_is_the_binomial_test(broken: int, fixed: int) -> None:
    """Exact and two-sided; five one-way changes prove nothing at 5 %, six do."""
    expected = binomtest(broken, broken + fixed).pvalue if broken + fixed else 1.0
    assert paired_tests.mcnemar(broken, fixed) == pytest.approx(expected, abs=1e-12)


def test_six_one_way_changes_are_the_fewest_that_mcnemar_sees() -> None:
    """FACTS: fewer than six cannot be told from chance at p < 0.05."""
    assert paired_tests.mcnemar(5, 0) == pytest.approx(0.0625)
    assert paired_tests.mcnemar(6, 0) == pytest.approx(0.03125)


@given(pairs, alphas)
@settings(max_examples=60, deadline=None)
def test_the_drop_lies_within_its_bounds(case: tuple[int, int, int], alpha: float) -> None:
    """Low <= observed <= high within -1..1; one more broken answer never lowers the upper bound."""
    images, broken, fixed = case
    low = paired_tests.smallest_drop(broken, fixed, images, alpha)
    high = paired_tests.largest_drop(broken, fixed, images, alpha)
    assert -1 <= low <= (broken - fixed) / images <= high <= 1
    if broken + fixed < images:
        assert paired_tests.largest_drop(broken + 1, fixed, images, alpha) >= high - 0.01 * (high - low)


@pytest.mark.parametrize("images", [50, 200, 2200])
def test_only_broken_answers_have_the_exact_binomial_bound(images: int) -> None:
    """With nothing fixed the worst case is that nothing gets fixed: Clopper and Pearson's bound."""
    for broken in (0, 1, 5):
        exact = paired_tests.clopper_pearson(broken, images, 0.025).high
        assert paired_tests.largest_drop(broken, 0, images, 0.025) == pytest.approx(exact, rel=0.02)


def test_many_changes_have_tangos_interval() -> None:
    """Where hundreds of answers change, the exact bounds meet the asymptotic ones: drop -+ 1.96 standard errors."""
    broken, fixed, images = 600, 400, 50_000
    drop = (broken - fixed) / images
    error = np.sqrt(broken + fixed - (broken - fixed) ** 2 / images) / images
    high = paired_tests.largest_drop(broken, fixed, images, 0.025)
    assert (high - drop) / error == pytest.approx(1.96, abs=0.05)
    assert (drop - paired_tests.smallest_drop(broken, fixed, images, 0.025)) / error == pytest.approx(1.96, abs=0.05)


def pass_rate(images: int, drop: float, fixed_share: float, margin: float, alpha: float) -> float:
    """The exact probability that the upper bound is within the margin, summed over all outcomes."""
    rate = 0.0
    for fixed in range(int(images * fixed_share + 7 * np.sqrt(images * fixed_share)) + 1):
        low, high = -1, min(images - fixed, int(images * (fixed_share + margin)) + 30)
        while low < high:
            middle = (low + high + 1) // 2
            within = paired_tests.largest_drop(middle, fixed, images, alpha) <= margin
            low, high = (middle, high) if within else (low, middle - 1)
        broken = (fixed_share + drop) / (1 - fixed_share)
        rate += binom.pmf(fixed, images, fixed_share) * binom.cdf(low, images - fixed, broken)
    return float(rate)


@pytest.mark.parametrize("images", [370, 1000])
@pytest.mark.parametrize("fixed_share", [0.0, 0.001, 0.01])
@pytest.mark.parametrize("margin", [0.005, 0.01])
def test_a_drop_beyond_the_margin_passes_in_at_most_alpha_of_all_test_sets(
    images: int, fixed_share: float, margin: float
) -> None:
    """At the margin itself, where a bad model has its best chance; computed, not simulated."""
    assert pass_rate(images, margin, fixed_share, margin, 0.025) <= 0.025


def test_tangos_own_bound_would_break_that_promise() -> None:
    """270 images without a change: its upper bound is below a point, but so come 6.6 % of sets with a drop of one."""
    z2 = 1.645**2
    assert z2 / (270 + z2) < 0.01
    assert 0.99**270 > 0.05
    assert paired_tests.largest_drop(0, 0, 270, 0.05) > 0.01


def test_the_number_of_images_that_would_decide() -> None:
    """No change: 3.69 / margin; a rate at the very margin is decided by no number."""
    needed = paired_tests.images_to_decide(30, lambda f: paired_tests.largest_drop(0, 0, round(30 * f), 0.025) <= 0.005)
    assert needed is not None
    assert 738 <= needed <= 770
    assert paired_tests.images_to_decide(30, lambda factor: False) is None
