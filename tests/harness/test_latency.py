"""Latency figures from raw samples."""

from __future__ import annotations

import numpy as np
import pytest

from harness import latency


def test_median_and_p90_over_all_blocks() -> None:
    """1 to 100 ms in ten blocks: median 50.5 ms, p90 at 90.1 ms."""
    samples = np.arange(1, 101).reshape(10, 10) / 1e3
    figures = latency.summarise(samples, load=0.2, first=0.3)
    assert figures.median == pytest.approx(0.0505)
    assert figures.p90 == pytest.approx(0.0901)
    assert (figures.load, figures.first, figures.samples) == (0.2, 0.3, 100)


def test_too_few_samples_have_no_p90() -> None:
    """A percentile that the samples cannot bear is not given."""
    assert latency.summarise(np.ones(63), 0, 0).p90 is None
    assert latency.summarise(np.ones(64), 0, 0).p90 == 1


def test_no_samples_are_refused() -> None:
    """The latency of nothing is an error."""
    with pytest.raises(ValueError, match="no latency samples"):
        latency.summarise(np.empty((0, 20)), 0, 0)
