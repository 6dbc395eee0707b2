"""Which variant to ship on each accelerator: the best of those that pass, by what the user prefers."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.cell import Accelerator
from harness.core.outcome import Outcome
from harness.judge.rules import number
from harness.output.formats.figures import duration, size
from harness.output.formats.runs import Preference, Runs
from harness.records.record import CellRecord, Record


@dataclass(frozen=True)
class Recommendation:
    """On one device and accelerator. variant: None if none passes. reason: with the numbers that decide."""

    device: str
    accelerator: Accelerator
    variant: str | None
    reason: str


def recommend(runs: Runs) -> list[Recommendation]:
    """For each device and accelerator; the smallest if the fastest is asked for and latency was not measured."""
    return [
        _best(device, accelerator, record, runs.prefer)
        for device, record in runs.each()
        for accelerator in dict.fromkeys(cell.accelerator for cell in record.cells)
    ]


def _best(device: str, accelerator: Accelerator, record: Record, prefer: Preference) -> Recommendation:
    cells = [cell for cell in record.cells if cell.accelerator == accelerator]
    passed = [cell for cell in cells if cell.verdict.outcome is Outcome.PASS]
    if not passed:
        outcomes = ", ".join(f"{cell.variant} {cell.verdict.outcome}" for cell in cells)
        return Recommendation(device, accelerator, None, f"no variant passes ({outcomes})")
    doubt = ""
    if prefer == "fastest":
        if any(cell.latency is None for cell in passed):
            prefer, doubt = "smallest", " (latency was not measured)"
        elif record.timing and record.timing.verdict.outcome is not Outcome.PASS:
            doubt = f" (latency is {record.timing.verdict.outcome})"
    ranked = sorted(((*_figure(cell, prefer), cell.variant) for cell in passed), key=lambda row: row[0])
    (_, figure, variant), *others = ranked
    which = f"the {prefer} of {len(passed)} that pass{doubt}" if others else "the only one that passes"
    beside = ", ".join(f"{name} {text}" for _, text, name in others)
    return Recommendation(device, accelerator, variant, f"{which}: {figure}{f', beside {beside}' if beside else ''}")


def _figure(cell: CellRecord, prefer: Preference) -> tuple[tuple[float, int], str]:
    """What decides, less is better, equal ones by size; and as text."""
    if prefer == "fastest" and cell.latency:
        return (cell.latency.median, cell.size_bytes), duration(cell.latency.median)
    if prefer == "least-changed" and cell.tensors and not cell.parity:
        error = max(part.mean_error for part in cell.tensors)
        return (error, cell.size_bytes), f"mean error {number(error)}"
    if prefer == "least-changed" and cell.parity:
        return (cell.parity.flips, cell.size_bytes), f"{cell.parity.flips} flip{'' if cell.parity.flips == 1 else 's'}"
    return (cell.size_bytes, cell.size_bytes), size(cell.size_bytes)
