"""The policy's limits of latency, and an earlier check of the same host to hold the figures against."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from harness import record
from harness.errors import SetupError
from harness.latency import Latency, Ratio
from harness.policy import LatencyRule
from harness.record import Record
from harness.statistics import Interval
from harness.verdict import Outcome, Verdict, within

SAME = ("host", "processor", "machine", "cores")  # of two machines that may be compared


@dataclass(frozen=True)
class Baseline:
    """An earlier check of the same host."""

    path: Path
    record: Record

    def check(self, machine: Mapping[str, Any], threads: int) -> None:
        """Raise SetupError unless it was measured on this host, with as many threads."""
        for key in SAME:
            theirs, ours = self.record.machine.get(key), machine.get(key)
            if theirs != ours:
                raise SetupError(
                    f"{self.path}: measured where {key} is {theirs!r}, here it is {ours!r}, and times of two hosts do "
                    "not compare; expected a record of this host: harness check --json baseline.json"
                )
        if (theirs := self.record.plan.get("threads")) != threads:
            raise SetupError(f"{self.path}: measured with {theirs} threads, now with {threads}; expected as many")

    def changes(self, figures: Mapping[str, Latency]) -> tuple[Ratio, ...]:
        """Each kind's median / the earlier one's; of kinds that both have."""
        known = {variant.kind: variant.latency for variant in self.record.variants}
        return tuple(
            Ratio(kind, str(self.path), now.median / before.median, _quotient(now, before))
            for kind, now in figures.items()
            if (before := known.get(kind))
        )


def load(path: Path | None, rules: Sequence[LatencyRule]) -> Baseline | None:
    """A baseline, where one is named. Raises SetupError: none where a rule asks for one, damaged, without latency."""
    if path is None:
        if any(rule.largest_ratio for rule in rules):
            raise SetupError(
                "the policy's largest_ratio needs a baseline: expected --baseline RECORD.json, a record of this host "
                "that harness check --json RECORD.json wrote without that rule"
            )
        return None
    stored = record.read(path)
    if not any(variant.latency for variant in stored.variants):
        raise SetupError(f"{path}: holds no latency; expected a record of a harness check that measured it")
    return Baseline(path, stored)


def names(machine: Mapping[str, Any], address: str = "local") -> list[str]:
    """By which a rule may call a device."""
    return [address, str(machine.get("host")), str(machine.get("processor"))]


def fitting(rules: Sequence[LatencyRule], names: Sequence[str]) -> list[LatencyRule]:
    """The rules for a device of these names."""
    return [rule for rule in rules if any(fnmatchcase(name, rule.device) for name in names)]


def judge(rules: Sequence[LatencyRule], figures: Mapping[str, Latency], found: Sequence[Ratio]) -> Iterator[Verdict]:
    """What each rule says of each kind that it fits; a figure that is missing is INCONCLUSIVE."""
    against = {change.kind: change for change in found}
    for rule in rules:
        for kind, times in figures.items():
            if not fnmatchcase(kind, rule.kind):
                continue
            if rule.p90_s:
                yield _budget(kind, times, rule.p90_s)
            if rule.largest_ratio:
                yield _change(kind, against.get(kind), rule.largest_ratio)


def _budget(kind: str, times: Latency, limit: float) -> Verdict:
    if times.p90 is None:
        return Verdict(Outcome.INCONCLUSIVE, (f"{kind}: {times.samples} samples bear no p90; measure for longer",))
    interval = times.p90_interval or Interval(times.p90, times.p90)
    text = f"{kind}: p90 {_ms(times.p90)} ({_ms(interval.low)} to {_ms(interval.high)}), {_ms(limit)} allowed"
    return Verdict(within(interval, limit), (text,))


def _change(kind: str, change: Ratio | None, limit: float) -> Verdict:
    if change is None:
        return Verdict(Outcome.INCONCLUSIVE, (f"{kind}: has no figure in the baseline to be held against",))
    interval = change.interval or Interval(change.ratio, change.ratio)
    text = f"{kind}: {change.ratio:.3f} times the baseline ({interval.low:.3f} to {interval.high:.3f})"
    return Verdict(within(interval, limit), (f"{text}, {limit:g} allowed",))


def _quotient(one: Latency, other: Latency) -> Interval | None:
    """Of two independent medians: their errors on the logarithmic scale, added as squares."""
    if not one.median_interval or not other.median_interval:
        return None
    ratio = one.median / other.median
    down = math.hypot(
        math.log(one.median / one.median_interval.low), math.log(other.median_interval.high / other.median)
    )
    up = math.hypot(math.log(one.median_interval.high / one.median), math.log(other.median / other.median_interval.low))
    return Interval(ratio * math.exp(-down), ratio * math.exp(up))


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"
