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
from harness.timing.figures import SAMPLES_FOR, AAControl, DisturbedBlock, Latency, Memory, Ratio, Timing

BASE = "float32"  # that the others are compared with
CONTROL_TOLERANCE = 0.01  # it may be off by this much, however narrow its interval
MAX_CONTROL_WIDTH = 0.10  # of its interval, high / low - 1
MAX_DISTURBED = 0.2  # of the blocks


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


def judge(
    runs: Sequence[LatencyRun],
    measured: Mapping[str, Latency],
    threads: int,
    rules: Sequence[LatencyRule] = (),
    failures: Sequence[Verdict] = (),
    changes: Sequence[Ratio] = (),
    device: DeviceRecord | None = None,
    cells: Iterable[str] = (),
) -> Timing:
    """The latency verdict and all it rests on.

    failures: of tasks or cells that were not measured. device: the record's, for its states before and after.
    cells: all of the check; a limit for one that was not measured is INCONCLUSIVE.
    """
    disturbed = machine_state.disturbed(runs, threads)
    blocks = sum(len(run.order) for run in runs)
    control = _control(runs)
    if rules and not measured:
        failures = (*failures, Verdict(Outcome.INCONCLUSIVE, ("latency was not measured",)))
    unmeasured = {cell: None for cell in cells if cell not in measured} if measured else {}
    limited = list(limits.judge(rules, {**measured, **unmeasured}, changes))
    hindered = hindrances(device.state, device.state_after) if measured and device else ()
    verdict = _verdict(control, disturbed, blocks, limited, failures, hindered)
    return Timing(
        verdict=verdict,
        gated=bool(rules) or verdict.outcome is Outcome.FAIL,
        control=control,
        ratios=tuple(_ratios(runs, list(measured))),
        processes=len(runs),
        blocks=blocks,
        disturbed=disturbed,
        machine=machine_state.readings(runs) if runs else {},
        changes=tuple(changes),
    )


def _verdict(
    control: AAControl | None,
    disturbed: Sequence[DisturbedBlock],
    blocks: int,
    limited: Sequence[Verdict],
    failures: Sequence[Verdict],
    hindered: Sequence[str],
) -> Verdict:
    """A crash FAILs; figures that cannot be trusted are INCONCLUSIVE whatever the limits say; then the limits."""
    crashes = [reason for failure in failures if failure.outcome is Outcome.FAIL for reason in failure.reasons]
    if crashes:
        return Verdict(Outcome.FAIL, tuple(crashes))
    doubts = [reason for failure in failures for reason in failure.reasons]
    doubts += [f"the device holds its speed back: {hindrance}" for hindrance in hindered]
    if control and not control.passes:
        doubts.append(f"the A/A control does not pass: {control}")
    if len(disturbed) > MAX_DISTURBED * blocks:
        commonest, _ = Counter(what for block in disturbed for what in block.disturbances).most_common(1)[0]
        doubts.append(f"{len(disturbed)} of {blocks} blocks were disturbed ({commonest}); try harness device doctor")
    if doubts:
        return Verdict(Outcome.INCONCLUSIVE, tuple(doubts))
    for worst in reversed(outcome.SEVERITY):
        if reasons := [reason for verdict in limited if verdict.outcome is worst for reason in verdict.reasons]:
            return Verdict(worst, tuple(reasons))
    sound = str(control) if control else "without an A/A control: cells were measured one after the other"
    return Verdict(Outcome.PASS, (sound, f"{len(disturbed)} of {blocks} blocks disturbed"))


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
