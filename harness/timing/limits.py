"""The policy's limits of latency, and an earlier check of the same host to hold the figures against."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product

from harness.core.cell import Cell
from harness.core.outcome import Outcome, Verdict, within
from harness.judge.policy import LatencyRule
from harness.run.job import Machine
from harness.run.latency_plan import Mode
from harness.timing.counts import Counts
from harness.timing.figures import Latency, Ratio


def device_names(machine: Machine, address: str) -> list[str]:
    """The names by which a rule may call a device."""
    return [address, machine.host, machine.processor]


def rules_for(rules: Sequence[LatencyRule], names: Sequence[str]) -> list[LatencyRule]:
    """The rules for a device of these names."""
    return [rule for rule in rules if any(fnmatchcase(name, rule.device) for name in names)]


# How a mode is measured.
HOW = {"sustained": "--sustain 10m", "paced": "--pace 500ms", "cold": "--cold", "energy": "--energy"}
BYTES, JOULES = "max_memory_bytes", "max_joules"


@dataclass(frozen=True)
class Exact:
    """What is known of a cell without an interval."""

    size_bytes: int
    counts: Counts | None = None


INTERVALS = {  # limit: what it limits, and its interval, in a Latency
    "max_median_s": ("median", "median_interval"),
    "max_p90_s": ("p90", "p90_interval"),
    "max_load_s": ("load", "load_interval"),
    "max_first_s": ("first", "first_interval"),
    BYTES: ("memory", "memory_interval"),
    JOULES: ("joules", "interval"),
}


def judge(
    rules: Sequence[LatencyRule],
    figures: Mapping[Mode, Mapping[str, Latency]],
    changes: Sequence[Ratio],
    cells: Iterable[str] = (),
) -> Iterator[Verdict]:
    """What each rule says of each cell that it fits, but for its size. INCONCLUSIVE if a figure or its interval is
    missing.

    figures: by mode and cell. cells: all of the check.
    """
    against = {change.cell: change for change in changes}
    cells = dict.fromkeys([*cells, *(cell for measured in figures.values() for cell in measured)])
    for rule in rules:
        for name in [name for name in cells if rule.fits(Cell.parse(name))]:
            latency = figures.get(rule.mode, {}).get(name)
            mode = "" if rule.mode == "steady" else f"{rule.mode} "
            if latency is None:
                how = f"; harness check {HOW[rule.mode]}" if mode else ""
                yield Verdict(Outcome.INCONCLUSIVE, (f"{name}: {mode}latency was not measured{how}",))
                continue
            for limit in INTERVALS:
                if allowed := getattr(rule, limit):
                    yield _within(f"{name}: {mode}", limit, latency, allowed)
            if rule.max_ratio:
                yield _ratio(name, against.get(name), rule.max_ratio)


def judge_exact(rules: Sequence[LatencyRule], cells: Mapping[str, Exact]) -> Iterator[Verdict]:
    """What each rule says of what is known of each cell without an interval."""
    for rule, (name, exact) in product(rules, cells.items()):
        if not rule.fits(Cell.parse(name)):
            continue
        if limit := rule.max_size_bytes:
            text = f"{name}: size {_mb(exact.size_bytes)}, {_mb(limit)} allowed"
            yield Verdict(Outcome.PASS if exact.size_bytes <= limit else Outcome.FAIL, (text,))
        counts = exact.counts
        if (rule.max_instructions or rule.max_instructions_ratio) and counts is None:
            yield _undecided(f"{name}: instructions were not counted", "; harness check --count")
            continue
        if counts and (limit := rule.max_instructions):
            text = f"{name}: {counts.instructions:,} instructions, {limit:,.0f} allowed"
            yield Verdict(Outcome.PASS if counts.instructions <= limit else Outcome.FAIL, (text,))
        if counts and (limit := rule.max_instructions_ratio):
            if not counts.baseline_instructions:
                yield _undecided(f"{name}: the baseline has no counts of it by {counts.tool}", "")
                continue
            ratio = counts.instructions / counts.baseline_instructions
            text = f"{name}: {ratio:.4f} times the baseline's instructions, {limit:g} allowed"
            yield Verdict(Outcome.PASS if ratio <= limit else Outcome.FAIL, (text,))


def _within(prefix: str, limit: str, latency: Latency, allowed: float) -> Verdict:
    what, its_interval = INTERVALS[limit]
    measured = latency.energy if limit == JOULES else latency
    value, interval = getattr(measured, what, None), getattr(measured, its_interval, None)
    if latency.over_time and latency.over_time.plateau_s is None:
        return _undecided(f"{prefix}{what}: it had not settled at the end")
    if value is None:
        few = f"{prefix}{latency.samples} samples are too few for a {what}"
        missing = f"{prefix}{what} unavailable on this device"
        return _undecided(missing, "") if limit in (BYTES, JOULES) else _undecided(few)
    shown = {BYTES: _mb, JOULES: _mj}.get(limit, _ms)
    value = value.peak_bytes if limit == BYTES else value
    if interval is None:
        once = "in one process" if limit in ("max_load_s", "max_first_s", BYTES) else "of one block"
        return _undecided(f"{prefix}{what} {shown(value)} {once}, which gives no interval")
    text = f"{prefix}{what} {shown(value)} ({shown(interval.low)} to {shown(interval.high)}), {shown(allowed)} allowed"
    return Verdict(within(interval, allowed), (text,))


def _ratio(name: str, change: Ratio | None, limit: float) -> Verdict:
    if change is None:
        return Verdict(Outcome.INCONCLUSIVE, (f"{name}: the baseline has no latency of it",))
    text = f"{name}: {change.ratio:.3f} times the baseline"
    if change.interval is None:
        return _undecided(f"{text}, one of the two measured in one block, which gives no interval")
    text += f" ({change.interval.low:.3f} to {change.interval.high:.3f}), {limit:g} allowed"
    return Verdict(within(change.interval, limit), (text,))


def _undecided(reason: str, remedy: str = "; measure for longer") -> Verdict:
    return Verdict(Outcome.INCONCLUSIVE, (f"{reason}{remedy}",))


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"


def _mj(joules: float) -> str:
    return f"{joules * 1e3:.3g} mJ"


def _mb(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.3g} MB"
