"""From raw arrays to figures, and from figures to the latency verdict: the same for a check and for its record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from harness.core import outcome
from harness.core.outcome import Interval, Outcome, Verdict
from harness.judge.policy import LatencyRule
from harness.run.devices.base import DeviceRecord, hindrances
from harness.run.latency_run import LatencyRun
from harness.run.worker import CONTROL
from harness.timing import bootstrap, limits, machine_state
from harness.timing.figures import SAMPLES_FOR, Control, Latency, MarkedBlock, Memory, Ratio, Timing

BASE = "float32"  # that the others are compared with
UNEVEN = 0.01  # the control may be off by this much, however narrow its interval
WIDEST_CONTROL = 0.10  # its interval, high / low - 1
MOST_MARKED = 0.2  # of the blocks


def figures(runs: Sequence[LatencyRun]) -> dict[str, Latency]:
    """Of every cell that was measured in any process."""
    cells = dict.fromkeys(cell for run in runs for cell in run.cells)
    return {cell: _figures(cell, [run for run in runs if cell in run.times]) for cell in cells}


def _figures(cell: str, runs: Sequence[LatencyRun]) -> Latency:
    samples = [run.times[cell].samples for run in runs]
    size = sum(part.size for part in samples)
    tail = {share: bootstrap.quantile(samples, share) for share, least in SAMPLES_FOR.items() if size >= least}
    none = (None, None)
    median, median_interval = bootstrap.quantile(samples, 0.5)
    remarks = bootstrap.remarks(samples)
    if unsettled := sum(not run.times[cell].settled for run in runs):
        remarks = (f"unsettled after the warm-up in {unsettled} of {len(runs)} processes", *remarks)
    began = [run for run in runs if run.first_loaded == cell]
    memory = [run.memory for run in began if np.isfinite(run.memory).all()]
    starts = [next(iter(run.times.values())) for run in began]
    starts = starts or [run.times[cell] for run in runs]  # never loaded first: others had warmed the runtime
    return Latency(
        median=median,
        median_interval=median_interval,
        p90=tail.get(0.9, none)[0],
        p90_interval=tail.get(0.9, none)[1],
        p95=tail.get(0.95, none)[0],
        p99=tail.get(0.99, none)[0],
        load=float(np.median([times.load for times in starts])),
        first=float(np.median([times.first for times in starts])),
        samples=size,
        processes=len(runs),
        memory=Memory(*(int(part) for part in np.median(memory, axis=0))) if memory else None,
        remarks=remarks,
    )


def timing(
    runs: Sequence[LatencyRun],
    measured: Mapping[str, Latency],
    threads: int,
    rules: Sequence[LatencyRule] = (),
    failures: Sequence[Verdict] = (),
    changes: Sequence[Ratio] = (),
    device: DeviceRecord | None = None,
) -> Timing:
    """The latency verdict and all it rests on.

    failures: of tasks or kinds that were not measured. device: the record's, for its states before and after.
    """
    marked = machine_state.marked(runs, threads)
    blocks = sum(len(run.order) for run in runs)
    control = _control(runs)
    judged = list(limits.judge(rules, measured, changes))
    if rules and not measured:
        failures = (*failures, Verdict(Outcome.INCONCLUSIVE, ("latency was not measured",)))
    against = hindrances(device.state, device.state_after) if measured and device else ()
    trusted = _verdict(control, marked, blocks, judged, failures, against)
    return Timing(
        verdict=trusted,
        gated=bool(rules) or trusted.outcome is Outcome.FAIL,
        control=control,
        ratios=tuple(_ratios(runs, list(measured))),
        processes=len(runs),
        blocks=blocks,
        marked=marked,
        machine=machine_state.machine(runs) if runs else {},
        changes=tuple(changes),
    )


def _verdict(
    control: Control | None,
    marked: Sequence[MarkedBlock],
    blocks: int,
    judged: Sequence[Verdict],
    failures: Sequence[Verdict],
    against: Sequence[str],
) -> Verdict:
    """A crash FAILs; figures that cannot be trusted are INCONCLUSIVE whatever the limits say; then the limits."""
    crashes = [reason for failure in failures if failure.outcome is Outcome.FAIL for reason in failure.reasons]
    if crashes:
        return Verdict(Outcome.FAIL, tuple(crashes))
    doubts = [reason for failure in failures for reason in failure.reasons]
    doubts += [f"the device holds its speed back: {hindrance}" for hindrance in against]
    if control and not control.even:
        doubts.append(f"the machine does not measure evenly: {described(control)}")
    if len(marked) > MOST_MARKED * blocks:
        commonest, _ = Counter(mark for block in marked for mark in block.marks).most_common(1)[0]
        doubts.append(
            f"the machine changed in {len(marked)} of {blocks} blocks ({commonest}); try harness device doctor"
        )
    if doubts:
        return Verdict(Outcome.INCONCLUSIVE, tuple(doubts))
    for severity in (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS):
        if reasons := [reason for one in judged if one.outcome is severity for reason in one.reasons]:
            return Verdict(severity, tuple(reasons))
    sound = [described(control)] if control else ["without a control: variants were measured one after the other"]
    return Verdict(Outcome.PASS, (*sound, f"{len(marked)} of {blocks} blocks marked"))


def overall(variants: Iterable[Verdict], timed: Timing | None) -> Outcome:
    """A check's outcome: the variants' answers, and their latency where it counts."""
    return outcome.overall([*variants, timed.verdict] if timed and timed.gated else variants)


def described(control: Control) -> str:
    """The control in words."""
    shown = f"{control.kind}'s file twice: ratio {control.ratio:.3f}"
    return shown + (f" ({control.interval.low:.3f} to {control.interval.high:.3f})" if control.interval else "")


def _control(runs: Sequence[LatencyRun]) -> Control | None:
    both = [run for run in runs if CONTROL in run.times and run.control in run.times]
    if not both:
        return None
    cell = both[0].control
    ratio, interval = bootstrap.ratio([(run.times[CONTROL].samples, run.times[cell].samples) for run in both])
    return Control(cell, ratio, interval, even(ratio, interval))


def even(ratio: float, interval: Interval | None) -> bool:
    """Whether a ratio that should be 1 is, and is known well enough to tell variants apart."""
    if interval is None or interval.high > (1 + WIDEST_CONTROL) * interval.low:
        return False
    return interval.low <= 1 <= interval.high or abs(ratio - 1) < UNEVEN


def _ratios(runs: Sequence[LatencyRun], cells: Sequence[str]) -> list[Ratio]:
    """Every other cell against float32, or against the first if there is no float32."""
    base = BASE if BASE in cells else next(iter(cells), "")
    ratios = []
    for cell in cells:
        both = [run for run in runs if cell in run.times and base in run.times]
        if cell != base and both:
            pairs = [(run.times[cell].samples, run.times[base].samples) for run in both]
            ratios.append(Ratio(cell, base, *bootstrap.ratio(pairs)))
    return ratios
