"""Latency figures from raw samples."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from harness import latency
from harness.latency import Control, MarkedBlock, Memory, Ratio, Timing
from harness.statistics import Interval
from harness.verdict import Outcome, Verdict


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


def test_figures_survive_the_record() -> None:
    """What is written as JSON is read back as it was."""
    figures = latency.summarise(np.linspace(1, 2, 700), load=0.2, first=0.3)
    interval = Interval(1.4, 1.6)
    figures = replace(figures, median_interval=interval, memory=Memory(3000, 2000), remarks=("drifts",))
    timing = Timing(
        verdict=Verdict(Outcome.INCONCLUSIVE, ("uneven",)),
        gated=False,
        control=Control("int8", 1.1, Interval(1.05, 1.15), even=False),
        ratios=(Ratio("int8", "float32", 0.5, interval), Ratio("dynamic_range", "float32", 0.7, None)),
        processes=2,
        blocks=48,
        marked=(MarkedBlock(1, 3, "int8", ("frequency fell",)),),
        machine={"frequency_hz": "unavailable", "temperature_c": {"lowest": 40.0, "median": 41.0, "highest": 50.0}},
    )
    stored = json.loads(json.dumps({"variant": asdict(figures), "check": timing.to_json()}))
    assert latency.latency_from_json(stored["variant"]) == figures
    assert latency.timing_from_json(stored["check"]) == timing
