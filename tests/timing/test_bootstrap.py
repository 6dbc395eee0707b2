"""Intervals and oddities of latency samples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from harness.core.outcome import Interval
from harness.timing import bootstrap
from harness.timing.verdict import passes

Array = npt.NDArray[np.float64]


def process(rng: np.random.Generator, *, slower: float = 1.0, blocks: int = 16, bias: float = 0.0) -> Array:
    """Samples of one process: it, every block and every inference with noise of their own."""
    block = rng.normal(bias, 0.01, (blocks, 1))
    return np.asarray(2e-3 * slower * np.exp(block + rng.exponential(0.01, (blocks, 20))))


def test_quantiles_are_of_all_samples() -> None:
    """1 to 100 ms in ten blocks: median 50.5 ms, p90 at 90.1 ms, each within its interval."""
    samples = np.random.default_rng(0).permutation(np.arange(1, 101) / 1e3).reshape(10, 10)
    for share, expected in ((0.5, 0.0505), (0.9, 0.0901)):
        value, interval = bootstrap.quantile([samples], share)
        assert value == pytest.approx(expected)
        assert interval is not None
        assert interval.low < value < interval.high


def test_one_block_has_no_interval() -> None:
    """Nothing tells how another block would have come out."""
    assert bootstrap.quantile([np.ones((1, 50))], 0.5) == (1.0, None)
    assert bootstrap.ratio([(np.ones((2, 5)), np.ones((2, 5)))]) == (1.0, None)


def test_the_ratio_cancels_a_drift() -> None:
    """A machine that slows down by half within the run still shows two equal variants as equal."""
    rng = np.random.default_rng(0)
    slowing = np.linspace(1, 1.5, 32).reshape(8, 4)  # the blocks A B B A of eight rounds
    pairs = []
    for _ in range(5):
        one = process(rng) * slowing[:, [0, 3]].reshape(-1, 1)
        other = process(rng) * slowing[:, [1, 2]].reshape(-1, 1)
        pairs.append((one, other))
    ratio, interval = bootstrap.ratio(pairs)
    assert ratio == pytest.approx(1, abs=0.01)
    assert interval is not None
    assert interval.low < 1 < interval.high


@pytest.mark.parametrize("slower", [1.0, 1.05])
def test_the_ratios_interval_holds_the_truth(slower: float) -> None:
    """In at least 36 of 40 runs of five processes, each with a bias of its own, and 5 % is told from none."""
    rng = np.random.default_rng(1)
    held = called = 0
    for _ in range(40):
        pairs = [
            (process(rng, slower=slower, bias=rng.normal(0, 0.004)), process(rng, bias=rng.normal(0, 0.004)))
            for _ in range(5)
        ]
        _, interval = bootstrap.ratio(pairs)
        assert interval is not None
        held += interval.low <= slower <= interval.high
        called += interval.low > 1
    assert held >= 36
    assert called >= 36 if slower > 1 else called <= 4


@pytest.mark.parametrize("processes", [2, 5, 10, 11, 30, 101])
def test_intervals_are_as_wide_as_students_t_whatever_the_processes(processes: int) -> None:
    """Also of more than nine, where a table would end."""
    assert bootstrap.student(processes - 1) == pytest.approx(stats.t.ppf(0.975, processes - 1), abs=1e-6)
    _, interval = bootstrap.quantile([process(np.random.default_rng(n)) for n in range(processes)], 0.5)
    wider = np.sqrt(processes / (processes - 1)) * stats.t.ppf(0.975, processes - 1) / stats.norm.ppf(0.975)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "student", lambda _: bootstrap.NORMAL * np.sqrt((processes - 1) / processes))
        _, narrow = bootstrap.quantile([process(np.random.default_rng(n)) for n in range(processes)], 0.5)
    assert interval is not None
    assert narrow is not None
    assert np.log(interval.high / interval.low) == pytest.approx(wider * np.log(narrow.high / narrow.low))


def test_drift_modes_outliers_and_differing_processes_are_named() -> None:
    """Each by its own words, and none of quiet samples."""
    rng = np.random.default_rng(2)
    quiet = [process(rng) for _ in range(5)]
    assert bootstrap.remarks(quiet) == ()
    slowing = [samples * np.linspace(1, 1.1, 16)[:, np.newaxis] for samples in quiet]
    assert "slower at the end" in bootstrap.remarks(slowing)[0]
    differing = [samples * factor for samples, factor in zip(quiet, (1, 1, 1, 1, 1.1), strict=True)]
    assert "processes differ" in bootstrap.remarks(differing)[0]
    late = [samples.copy() for samples in quiet]
    late[0][0, 0] *= 3
    assert "1 of 1600 inferences" in bootstrap.remarks(late)[0]
    two = [np.where(rng.random(samples.shape) < 0.3, samples * 1.3, samples) for samples in quiet]
    assert "two modes: 2.0" in bootstrap.remarks(two)[0]


def test_when_a_control_passes() -> None:
    """1 within the interval, or so near that it does not matter; an interval too wide to tell anything fails."""
    assert passes(1.02, Interval(0.99, 1.05))
    assert passes(1.005, Interval(1.002, 1.008))
    assert not passes(1.03, Interval(1.02, 1.04))
    assert not passes(1.0, Interval(0.9, 1.1))
    assert not passes(1.0, None)
