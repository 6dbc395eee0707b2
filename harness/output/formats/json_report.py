"""Runs as JSON: the records in their published shape, and the verdict of all."""

from __future__ import annotations

from msgspec import field

from harness.core import shapes
from harness.core.outcome import Outcome
from harness.core.shapes import Shape
from harness.output.formats.runs import Runs
from harness.records.record import RecordBody


class Report(Shape, tag_field="schema", tag="harness-report/2"):
    """devices: their names, in the order of the records."""

    outcome: Outcome = field(name="verdict")
    devices: tuple[str, ...]
    records: tuple[RecordBody, ...]


def render(runs: Runs) -> str:
    return shapes.encode(Report(runs.outcome, runs.devices, tuple(record.body for record in runs.records))).decode()
