"""An earlier check of the same host, which latency is compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import SetupError
from harness.core.outcome import Interval
from harness.judge.policy import LatencyRule
from harness.records import record
from harness.records.record import Record
from harness.run.job import Machine
from harness.timing.counts import Counts
from harness.timing.figures import Latency, Ratio

BASED = ("max_ratio", "max_instructions_ratio")  # limits that compare with a baseline
SAME = ("host", "processor", "machine", "cores")  # on machines whose times are compared


@dataclass(frozen=True)
class Baseline:
    """An earlier check of the same host."""

    path: Path
    record: Record

    def check(self, machine: Machine, threads: int) -> None:
        """Raise SetupError unless it was measured on this host with as many threads."""
        for key in SAME:
            theirs, ours = getattr(self.record.machine, key), getattr(machine, key)
            if theirs != ours:
                raise SetupError(
                    f"{self.path}: measured where {key} is {theirs!r}, here it is {ours!r}, and times of two hosts "
                    "cannot be compared; expected a record of this host: harness check --json baseline.json"
                )
        if (theirs := self.record.plan.threads if self.record.plan else None) != threads:
            raise SetupError(f"{self.path}: measured with {theirs} threads, now with {threads}; expected as many")

    def counts(self, cell: str) -> Counts | None:
        """What it counted of a cell."""
        return next((stored.counts for stored in self.record.cells if stored.name == cell), None)

    def changes(self, figures: Mapping[str, Latency]) -> tuple[Ratio, ...]:
        """Each cell's median divided by the earlier one's, for cells that both have."""
        known = {stored.name: stored.latency for stored in self.record.cells}
        return tuple(
            Ratio(cell, str(self.path), now.median / before.median, _quotient(now, before))
            for cell, now in figures.items()
            if (before := known.get(cell))
        )


def load_baseline(path: Path | None, rules: Sequence[LatencyRule]) -> Baseline | None:
    """None if there is no path. Raises SetupError: a rule needs one, or the record is damaged or has no latency."""
    if path is None:
        if needed := next((key for rule in rules for key in BASED if getattr(rule, key)), None):
            raise SetupError(
                f"the policy's {needed} needs a baseline: expected --baseline RECORD.json, a record of this host "
                "that harness check --json RECORD.json wrote without that rule"
            )
        return None
    stored = record.read(path)
    if not any(cell.latency or cell.counts for cell in stored.cells):
        raise SetupError(
            f"{path}: holds no latency and no counts; expected a record of a harness check that measured it"
        )
    return Baseline(path, stored)


def _quotient(now: Latency, before: Latency) -> Interval | None:
    """Interval of the quotient of two independent medians, whose errors add as squares on the logarithmic scale."""
    if not now.median_interval or not before.median_interval:
        return None
    ratio = now.median / before.median
    down = math.log(now.median / now.median_interval.low), math.log(before.median_interval.high / before.median)
    up = math.log(now.median_interval.high / now.median), math.log(before.median / before.median_interval.low)
    return Interval(ratio * math.exp(-math.hypot(*down)), ratio * math.exp(math.hypot(*up)))
