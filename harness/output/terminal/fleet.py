"""A fleet on the terminal."""

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
    """One row per device, one column per variant; the reasons of those that did not pass; the fleet's verdict last."""
    names = list(dict.fromkeys(cell.name for member in done if member.record for cell in member.record.cells))
    rows = []
    for member in done:
        cells = {cell.name: cell for cell in member.record.cells} if member.record else {}
        texts = (_cell(cells[name]) if name in cells else "-" for name in names)
        rows.append((member.uri, coloured(member.outcome), *texts))
    reasons = [
        f"{member.uri}: {member.outcome}: {reason}"
        for member in done
        if member.outcome is not Outcome.PASS
        for reason in member.reasons
    ]
    tally = Counter(member.outcome for member in done)
    counted = ", ".join(f"{tally[outcome]} {outcome}" for outcome in EXIT_CODES if tally[outcome])
    worst = max((member.outcome for member in done), key=list(EXIT_CODES).index)
    table = grid(rows, ("device", "verdict", *names), left=2 + len(names))
    return fit("\n".join([table, "", *reasons, f"{len(done)} devices: {counted}", f"verdict: {coloured(worst)}"]))


def _cell(cell: CellRecord) -> str:
    flips = f", {cell.parity.flips} flips" if cell.parity else ""
    time = f", {duration(cell.latency.median)}" if cell.latency else ""
    return f"{cell.verdict.outcome}{flips}{time}"
