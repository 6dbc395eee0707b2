"""The picture to choose by: which points are drawn grey, what is allowed, and what is recommended."""

from __future__ import annotations

from msgspec.structs import replace

from harness.core.cell import Cell
from harness.judge.policy import LatencyRule
from harness.output.formats.runs import Runs
from harness.output.report import check, choice
from harness.output.report.choice import Choice
from harness.records.record import Record
from tests.output.test_formats import timed
from tests.records.sample import a_run


def shown(record: Record) -> Choice:
    points = choice.choose(Runs((record,), ("a device",)), "a device", record)
    assert points is not None
    return points


def test_what_another_variant_beats_in_everything_is_dominated() -> None:
    """float32 against an int8 that is as exact and twice as fast; a larger file that fails is dominated, too."""
    run = timed(a_run(broken=0))
    points = {point.name: point for point in shown(run).points}
    assert points["float32"].dominated
    assert not points["int8"].dominated
    assert points["int8"].recommended
    assert "int8 PASS at 2.0" in shown(run).alt
    exact = {point.name: point for point in shown(timed(a_run(broken=60))).points}
    assert not exact["float32"].dominated
    assert not exact["int8"].dominated  # it fails, but nothing is as fast


def test_axes_are_what_was_measured_and_limited() -> None:
    """Time if every variant was timed, the 90th percentile if that is limited, else size; what the policy allows."""
    assert shown(a_run()).cost == "size, KB"
    run = timed(a_run())
    assert shown(run).cost == "median, ms an inference"
    limited = replace(run, policy=replace(run.policy, latency=(LatencyRule(max_p90_s=0.003),)))
    assert (shown(limited).cost, shown(limited).limit) == ("90th percentile, ms an inference", 3.0)
    assert {point.allowed for point in shown(run).points} == {100 * run.policy.limits(Cell("int8")).max_accuracy_drop}


def test_the_page_has_the_picture() -> None:
    """With its text alternative; not of a single variant."""
    run = timed(a_run())
    page = check.render(Runs((run,), ("a device",)))
    assert "The choice" in page
    assert shown(run).alt in page
    assert choice.choose(Runs((run,), ("a device",)), "a device", replace(run, cells=run.cells[:1])) is None
