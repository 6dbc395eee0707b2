"""A fleet for a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.core.outcome import EXIT_CODES, Outcome
from harness.output.formats.figures import milliseconds
from harness.output.terminal.style import coloured, grid
from harness.records.record import VariantRecord

if TYPE_CHECKING:
    from harness.check.fleet import Member


def fleet(done: Sequence[Member]) -> str:
    """One row a device, a column a variant; the reasons of those that did not pass; the fleet's verdict last."""
    kinds = list(dict.fromkeys(variant.kind for one in done if one.record for variant in one.record.variants))
    rows = []
    for one in done:
        of = {variant.kind: variant for variant in one.record.variants} if one.record else {}
        rows.append((one.uri, coloured(one.outcome), *(_cell(of[kind]) if kind in of else "-" for kind in kinds)))
    reasons = [
        f"{one.uri}: {one.outcome}: {reason}"
        for one in done
        if one.outcome is not Outcome.PASS
        for reason in one.reasons
    ]
    tally = Counter(one.outcome for one in done)
    counted = ", ".join(f"{tally[outcome]} {outcome}" for outcome in EXIT_CODES if tally[outcome])
    worst = max((one.outcome for one in done), key=list(EXIT_CODES).index)
    table = grid(rows, ("device", "verdict", *kinds), left=2 + len(kinds))
    return "\n".join([table, "", *reasons, f"{len(done)} devices: {counted}", f"verdict: {coloured(worst)}"])


def _cell(variant: VariantRecord) -> str:
    flips = f", {variant.parity.flips} flips" if variant.parity else ""
    time = f", {milliseconds(variant.latency.median)}" if variant.latency else ""
    return f"{variant.verdict.outcome}{flips}{time}"
