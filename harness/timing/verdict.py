"""From raw arrays to figures, and from figures to the latency verdict: the same for a check and for its record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from harness.core import outcome
from harness.core.outcome import Interval, Outcome, Verdict
from harness.judge.policy import LatencyRule
from harness.run.devices.base import DeviceRecord, hindrances
from harness.run.latency_plan import Mode
from harness.run.latency_run import LatencyRun
from harness.run.worker import CONTROL
from harness.timing import bootstrap, energy, limits, machine_state, over_time
from harness.timing.figures import SAMPLES_FOR, AAControl, DisturbedBlock, Latency, Memory, OverTime, Ratio, Timing
from harness.timing.limits import Exact

BASE = "float32"  # that the others are compared with
CONTROL_TOLERANCE = 0.01  # it may be off by this much, however narrow its interval
MAX_CONTROL_WIDTH = 0.10  # of its interval, high / low - 1


def figures(runs: Sequence[LatencyRun]) -> dict[str, Latency]:
    """Of every cell that was measured in any process, in the steady mode."""
    return by_mode(runs).get("steady", {})


def by_mode(runs: Sequence[LatencyRun]) -> dict[Mode, dict[str, Latency]]:
    """The same of every mode that was measured."""
    all_figures: dict[Mode, dict[str, Latency]] = {}
    for mode, cell in dict.fromkeys((run.mode, cell) for run in runs for cell in run.cells):
        measured = [run for run in runs if run.mode == mode and cell in run.times]
        all_figures.setdefault(mode, {})[cell] = _figures(cell, measured, mode)
    return all_figures


def _figures(cell: str, runs: Sequence[LatencyRun], mode: Mode) -> Latency:
    samples: list[Any] = [run.times[cell].samples for run in runs]
    size = sum(part.size for part in samples)
    course = None
    if mode == "sustained":
        course, plateau = over_time.sustained(runs[0], cell)
        samples = [plateau]
    tail = {share: bootstrap.quantile(samples, share) for share, least in SAMPLES_FOR.items() if size >= least}
    none = (None, None)
    median, median_interval = bootstrap.quantile(samples, 0.5)
    began = [run for run in runs if run.first_loaded == cell]
    memory = [run.memory for run in began if np.isfinite(run.memory).all()]
    starts = [next(iter(run.times.values())) for run in began]
    starts = starts or [run.times[cell] for run in runs]  # never loaded first: others had warmed the runtime
    metered = None
    if mode == "energy":
        cells = runs[0].cells
        metered = energy.energy(runs[0], cell, _base(cells))
    load, first = (_of_processes([getattr(times, name) for times in starts]) for name in ("load", "first"))
    return Latency(
        median=median,
        median_interval=median_interval,
        p90=tail.get(0.9, none)[0],
        p90_interval=tail.get(0.9, none)[1],
        p95=tail.get(0.95, none)[0],
        p99=tail.get(0.99, none)[0],
        load=load[0],
        first=first[0],
        samples=size,
        processes=len(runs),
        memory=Memory(*(int(part) for part in np.median(memory, axis=0))) if memory else None,
        remarks=tuple(_remarks(cell, runs, mode, course)),
        load_interval=load[1],
        first_interval=first[1],
        memory_interval=_of_processes([float(peak) for peak, _ in memory])[1] if memory else None,
        over_time=course,
        energy=metered,
    )


def _of_processes(values: Sequence[float]) -> tuple[float, Interval | None]:
    """The median of a figure that each process has once, and its interval. None for one process."""
    median, interval = bootstrap.quantile([np.array([[value]]) for value in values], 0.5)
    return median, interval if len(values) > 1 else None


def _remarks(cell: str, runs: Sequence[LatencyRun], mode: Mode, course: OverTime | None) -> Iterator[str]:
    if mode == "cold":
        if kept := sum(run.cached > 0 for run in runs):
            yield f"its file stayed in memory in {kept} of {len(runs)} starts: the system does not drop it there"
        if unknown := sum(np.isnan(run.cached) for run in runs):
            yield f"whether its file was dropped from memory is unknown in {unknown} of {len(runs)} starts"
        return
    if course:
        if course.plateau_s is None:
            yield "it had not settled at the end: sustain it for longer"
        return
    if mode == "steady" and (unsettled := sum(not run.times[cell].settled for run in runs)):
        yield f"unsettled after the warm-up in {unsettled} of {len(runs)} processes"
    yield from bootstrap.remarks([run.times[cell].samples for run in runs])


def judge(
    runs: Sequence[LatencyRun],
    measured: Mapping[Mode, Mapping[str, Latency]],
    threads: int,
    rules: Sequence[LatencyRule] = (),
    failures: Sequence[Verdict] = (),
    changes: Sequence[Ratio] = (),
    device: DeviceRecord | None = None,
    cells: Mapping[str, Exact] = MappingProxyType({}),
) -> Timing:
    """The latency verdict and all it rests on.

    measured: by mode, then by cell. failures: of tasks or cells that were not measured. device: the record's, for its
    states before and after. cells: all of the check; a limit for one that was not measured is INCONCLUSIVE.
    """
    others = [run for run in runs if run.mode != "steady"]
    runs = [run for run in runs if run.mode == "steady"]
    steady = measured.get("steady", {})
    disturbed = machine_state.disturbed(runs, threads)
    blocks = sum(len(run.order) for run in runs)
    control = _control(runs)
    timed = [rule for rule in rules if rule.measured]
    if timed and not measured:
        failures = (*failures, Verdict(Outcome.INCONCLUSIVE, ("latency was not measured",)))
    limited = list(limits.judge(timed, measured, changes, cells)) if measured else []
    exact = list(limits.judge_exact(rules, cells))
    # A sustained run heats the device: its state afterwards says nothing of the steady blocks before.
    hindered = hindrances(device.state, {} if others else device.state_after) if measured and device else ()
    doubts = list(_doubts(control, disturbed, blocks, failures, hindered))
    doubts = doubts if timed or not exact else []
    doubts += machine_state.busy([run for run in others if any(rule.mode == run.mode for rule in timed)])
    verdict = _verdict(control, f"{len(disturbed)} of {blocks} blocks disturbed", doubts, limited, exact, failures)
    return Timing(
        verdict=verdict,
        gated=bool(rules) or verdict.outcome is Outcome.FAIL,
        control=control,
        ratios=tuple(_ratios(runs, list(steady))),
        processes=len(runs),
        blocks=blocks,
        disturbed=disturbed,
        machine=machine_state.readings(runs) if runs else {},
        changes=tuple(changes),
    )


def _doubts(
    control: AAControl | None,
    disturbed: Sequence[DisturbedBlock],
    blocks: int,
    failures: Sequence[Verdict],
    hindered: Sequence[str],
) -> Iterator[str]:
    """Why the figures cannot be trusted."""
    yield from (reason for failure in failures for reason in failure.reasons)
    yield from (f"the device holds its speed back: {hindrance}" for hindrance in hindered)
    if control and not control.passes:
        yield f"the A/A control does not pass: {control}"
    if len(disturbed) > machine_state.MAX_DISTURBED * blocks:
        commonest, _ = Counter(what for block in disturbed for what in block.disturbances).most_common(1)[0]
        yield f"{len(disturbed)} of {blocks} blocks were disturbed ({commonest}); try harness device doctor"


def _verdict(
    control: AAControl | None,
    quiet: str,
    doubts: Sequence[str],
    limited: Sequence[Verdict],
    exact: Sequence[Verdict],
    failures: Sequence[Verdict],
) -> Verdict:
    """A crash FAILs, and so does a size or a count beyond its limit; figures that cannot be trusted are INCONCLUSIVE
    whatever the limits say; then the limits."""
    failed = [verdict for verdict in (*failures, *exact) if verdict.outcome is Outcome.FAIL]
    if failed:
        return Verdict(Outcome.FAIL, tuple(reason for verdict in failed for reason in verdict.reasons))
    if doubts:
        return Verdict(Outcome.INCONCLUSIVE, tuple(doubts))
    judged = (*limited, *exact)
    for worst in reversed(outcome.SEVERITY):
        if reasons := [reason for verdict in judged if verdict.outcome is worst for reason in verdict.reasons]:
            return Verdict(worst, tuple(reasons))
    sound = str(control) if control else "without an A/A control: cells were measured one after the other"
    return Verdict(Outcome.PASS, (sound, quiet))


def overall(cells: Iterable[Verdict], timed: Timing | None) -> Outcome:
    """A check's outcome: that of its cells' predictions, and of their latency where it counts."""
    return outcome.overall([*cells, timed.verdict] if timed and timed.gated else cells)


def _control(runs: Sequence[LatencyRun]) -> AAControl | None:
    both = [run for run in runs if CONTROL in run.times and run.control in run.times]
    if not both:
        return None
    cell = both[0].control
    ratio, interval = bootstrap.ratio([(run.times[CONTROL].samples, run.times[cell].samples) for run in both])
    return AAControl(cell, ratio, interval, passes(ratio, interval))


def passes(ratio: float, interval: Interval | None) -> bool:
    """Whether a ratio that should be 1 is, and is known well enough to tell variants apart."""
    if interval is None or interval.high > (1 + MAX_CONTROL_WIDTH) * interval.low:
        return False
    return interval.low <= 1 <= interval.high or abs(ratio - 1) < CONTROL_TOLERANCE


def _base(cells: Sequence[str]) -> str:
    return BASE if BASE in cells else next(iter(cells), "")


def _ratios(runs: Sequence[LatencyRun], cells: Sequence[str]) -> list[Ratio]:
    """Every other cell against float32, or against the first if there is no float32."""
    base = _base(cells)
    ratios = []
    for cell in cells:
        both = [run for run in runs if cell in run.times and base in run.times]
        if cell != base and both:
            pairs = [(run.times[cell].samples, run.times[base].samples) for run in both]
            ratios.append(Ratio(cell, base, *bootstrap.ratio(pairs)))
    return ratios
