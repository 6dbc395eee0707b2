"""Which variant to ship: of those that pass, on each device and accelerator, by what the user prefers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from harness.cli import main
from harness.core.outcome import Outcome, Verdict
from harness.output.formats import markdown, runs
from harness.output.formats.recommend import recommend
from harness.records.record import Record
from tests.output.test_formats import timed
from tests.records.sample import a_run, stored


def best(run: Record, prefer: runs.Preference = "fastest") -> tuple[str | None, str]:
    """What is recommended for the only device and accelerator."""
    (recommendation,) = recommend(runs.Runs((run,), ("a device",), prefer))
    return recommendation.variant, recommendation.reason


def test_the_fastest_that_passes_is_recommended() -> None:
    """int8, which takes half the time; the numbers that decide are named."""
    variant, reason = best(timed(a_run()))
    assert variant == "int8"
    assert reason.startswith("the fastest of 2 that pass: 2.0")
    assert "beside float32 4.0" in reason


def test_a_variant_that_does_not_pass_is_never_recommended() -> None:
    """int8 is faster and fails; float32 is all that is left. If that fails, too, none is recommended."""
    run = timed(a_run(broken=60))
    assert best(run)[0] == "float32"
    assert best(run)[1].startswith("the only one that passes: 4.0")
    failed = replace(run, cells=tuple(replace(cell, verdict=Verdict(Outcome.FAIL, ())) for cell in run.cells))
    assert best(failed) == (None, "no variant passes (float32 FAIL, int8 FAIL)")
    undecided = replace(run, cells=tuple(replace(c, verdict=Verdict(Outcome.INCONCLUSIVE, ())) for c in run.cells))
    assert best(undecided)[0] is None


def test_preferences_decide() -> None:
    """The smallest file; the fewest changed predictions, equal ones by size."""
    run = timed(a_run())
    small = replace(run, cells=(run.cells[0], replace(run.cells[1], size_bytes=500)))
    assert best(small, "smallest") == ("int8", "the smallest of 2 that pass: 500 B, beside float32 1 KB")
    assert best(small, "least-changed") == ("float32", "the least-changed of 2 that pass: 0 flips, beside int8 1 flip")


def test_what_was_not_measured_does_not_decide() -> None:
    """Without latency the smallest is recommended, and the sentence says why; doubtful latency is said to be."""
    assert "the smallest of 2 that pass (latency was not measured): 1 KB" in best(a_run())[1]
    doubtful = timed(a_run(), outcome=Outcome.INCONCLUSIVE)
    assert "the fastest of 2 that pass (latency is INCONCLUSIVE): 2.0" in best(doubtful)[1]


def test_each_accelerator_has_its_own() -> None:
    """int8 fails on the GPU, where float32 is recommended; several devices are named."""
    arrays = a_run().arrays.stored
    extra = {
        f"{variant}@gpu.{name}": arrays[f"{variant}.{name}"]
        for variant in ("float32", "int8")
        for name in ("outputs", "scale", "zero_point")
    }
    extra["int8@gpu.outputs"] = np.roll(arrays["int8.outputs"], 1, axis=1)
    run = a_run(extra)
    found = recommend(runs.side_by_side([run]))
    assert [(one.accelerator, one.variant) for one in found] == [("cpu", "float32"), ("gpu", "float32")]
    text = markdown.render(runs.side_by_side([run, replace(run, device=replace(run.device, name="phone"))]))
    assert "- phone, gpu: ship float32, the only one that passes: 1 KB" in text
    assert "| variant" in text
    assert "FAIL, 2200 flips" in text


def test_a_report_ends_with_the_recommendation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the terminal, by --prefer; a wrong preference is refused with the nearest."""
    path = stored(tmp_path)
    assert main(["report", str(path), "--prefer", "least-changed"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "cpu: ship float32, the least-changed of 2 that pass: 0 flips, beside int8 1 flip"
    assert main(["report", str(path), "--prefer", "fast"]) == 2
    assert "did you mean 'fastest'?" in capsys.readouterr().err
