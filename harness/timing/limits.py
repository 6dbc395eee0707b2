"""The policy's limits of latency, and an earlier check of the same host to hold the figures against."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from harness.core.cell import Cell
from harness.core.outcome import Outcome, Verdict, within
from harness.judge.policy import LatencyRule
from harness.run.job import Machine
from harness.timing.figures import Latency, Ratio


def device_names(machine: Machine, address: str) -> list[str]:
    """The names by which a rule may call a device."""
    return [address, machine.host, machine.processor]


def rules_for(rules: Sequence[LatencyRule], names: Sequence[str]) -> list[LatencyRule]:
    """The rules for a device of these names."""
    return [rule for rule in rules if any(fnmatchcase(name, rule.device) for name in names)]


def judge(
    rules: Sequence[LatencyRule], figures: Mapping[str, Latency | None], changes: Sequence[Ratio]
) -> Iterator[Verdict]:
    """What each rule says of each cell that it fits. INCONCLUSIVE if a figure or its interval is missing."""
    against = {change.cell: change for change in changes}
    for rule in rules:
        for name, latency in figures.items():
            if not rule.fits(Cell.parse(name)):
                continue
            if latency is None:
                yield Verdict(Outcome.INCONCLUSIVE, (f"{name}: latency was not measured",))
                continue
            if rule.max_p90_s:
                yield _p90(name, latency, rule.max_p90_s)
            if rule.max_ratio:
                yield _ratio(name, against.get(name), rule.max_ratio)


def _p90(name: str, latency: Latency, limit: float) -> Verdict:
    if latency.p90 is None:
        return _undecided(f"{name}: {latency.samples} samples are too few for a p90")
    if latency.p90_interval is None:
        return _undecided(f"{name}: p90 {_ms(latency.p90)} of one block, which gives no interval")
    low, high = _ms(latency.p90_interval.low), _ms(latency.p90_interval.high)
    text = f"{name}: p90 {_ms(latency.p90)} ({low} to {high}), {_ms(limit)} allowed"
    return Verdict(within(latency.p90_interval, limit), (text,))


def _ratio(name: str, change: Ratio | None, limit: float) -> Verdict:
    if change is None:
        return Verdict(Outcome.INCONCLUSIVE, (f"{name}: the baseline has no latency of it",))
    text = f"{name}: {change.ratio:.3f} times the baseline"
    if change.interval is None:
        return _undecided(f"{text}, one of the two measured in one block, which gives no interval")
    text += f" ({change.interval.low:.3f} to {change.interval.high:.3f}), {limit:g} allowed"
    return Verdict(within(change.interval, limit), (text,))


def _undecided(reason: str) -> Verdict:
    return Verdict(Outcome.INCONCLUSIVE, (f"{reason}; measure for longer",))


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"
