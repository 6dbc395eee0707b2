"""A fleet for a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.core.outcome import EXIT_CODES, Outcome
from harness.output.formats.figures import duration
from harness.output.terminal.style import coloured, fit, grid
from harness.records.record import CellRecord

if TYPE_CHECKING:
    from harness.check.fleet import Member


def fleet(done: Sequence[Member]) -> str:
    """One row a device, a column a variant; the reasons of those that did not pass; the fleet's verdict last."""
    names = list(dict.fromkeys(cell.name for one in done if one.record for cell in one.record.cells))
    rows = []
    for one in done:
        cells = {cell.name: cell for cell in one.record.cells} if one.record else {}
        texts = (_cell(cells[name]) if name in cells else "-" for name in names)
        rows.append((one.uri, coloured(one.outcome), *texts))
    reasons = [
        f"{one.uri}: {one.outcome}: {reason}"
        for one in done
        if one.outcome is not Outcome.PASS
        for reason in one.reasons
    ]
    tally = Counter(one.outcome for one in done)
    counted = ", ".join(f"{tally[outcome]} {outcome}" for outcome in EXIT_CODES if tally[outcome])
    worst = max((one.outcome for one in done), key=list(EXIT_CODES).index)
    table = grid(rows, ("device", "verdict", *names), left=2 + len(names))
    return fit("\n".join([table, "", *reasons, f"{len(done)} devices: {counted}", f"verdict: {coloured(worst)}"]))


def _cell(cell: CellRecord) -> str:
    flips = f", {cell.parity.flips} flips" if cell.parity else ""
    time = f", {duration(cell.latency.median)}" if cell.latency else ""
    return f"{cell.verdict.outcome}{flips}{time}"
