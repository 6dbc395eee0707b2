"""The policy's limits of latency, and an earlier check of the same host to hold the figures against."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from harness.core.outcome import Interval, Outcome, Verdict, within
from harness.judge.policy import LatencyRule
from harness.run.job import Machine
from harness.timing.figures import Latency, Ratio


def names(machine: Machine, address: str) -> list[str]:
    """By which a rule may call a device."""
    return [address, machine.host, machine.processor]


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


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"
