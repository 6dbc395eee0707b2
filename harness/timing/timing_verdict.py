"""From raw arrays to figures, and from figures to the latency verdict: the same for a check and for its record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.core import outcome
from harness.core.outcome import Interval, Outcome, Verdict
from harness.judge.policy import LatencyRule
from harness.run.devices.base import DeviceRecord, hindrances
from harness.run.worker import CONTROL
from harness.timing import bootstrap, limits, machine_state
from harness.timing.figures import SAMPLES_FOR, Control, Latency, MarkedBlock, Memory, Ratio, Timing

BASE = "float32"  # that the others are compared with
UNEVEN = 0.01  # the control may be off by this much, however narrow its interval
WIDEST_CONTROL = 0.10  # its interval, high / low - 1
MOST_MARKED = 0.2  # of the blocks

Run = Mapping[str, npt.NDArray[Any]]


def figures(found: Sequence[Run]) -> dict[str, Latency]:
    """Of every kind that was measured in any process."""
    kinds = dict.fromkeys(str(kind) for run in found for kind in run["kinds"] if kind != CONTROL)
    return {kind: _figures(kind, [run for run in found if kind in run["kinds"]]) for kind in kinds}


def _figures(kind: str, found: Sequence[Run]) -> Latency:
    samples = [run[f"{kind}.samples"] for run in found]
    size = sum(part.size for part in samples)
    tail = {share: bootstrap.quantile(samples, share) for share, least in SAMPLES_FOR.items() if size >= least}
    none = (None, None)
    median, median_interval = bootstrap.quantile(samples, 0.5)
    remarks = bootstrap.remarks(samples)
    if unsettled := sum(not run[f"{kind}.settled"] for run in found):
        remarks = (f"unsettled after the warm-up in {unsettled} of {len(found)} processes", *remarks)
    starts = [(run, name) for run in found if (name := str(run["kinds"][0])) == kind or _is_control(run, name, kind)]
    memory = [run["memory"] for run, _ in starts if np.isfinite(run["memory"]).all()]
    starts = starts or [(run, kind) for run in found]  # never the first to be loaded: others had warmed the runtime
    return Latency(
        median=median,
        median_interval=median_interval,
        p90=tail.get(0.9, none)[0],
        p90_interval=tail.get(0.9, none)[1],
        p95=tail.get(0.95, none)[0],
        p99=tail.get(0.99, none)[0],
        load=float(np.median([run[f"{name}.load"] for run, name in starts])),
        first=float(np.median([run[f"{name}.first"] for run, name in starts])),
        samples=size,
        processes=len(found),
        memory=Memory(*(int(part) for part in np.median(memory, axis=0))) if memory else None,
        remarks=remarks,
    )


def _is_control(run: Run, name: str, kind: str) -> bool:
    return name == CONTROL and str(run["control"]) == kind


def timing(
    found: Sequence[Run],
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
    marked = machine_state.marked(found, threads)
    blocks = sum(len(run["order"]) for run in found)
    control = _control(found)
    judged = list(limits.judge(rules, measured, changes))
    if rules and not measured:
        failures = (*failures, Verdict(Outcome.INCONCLUSIVE, ("latency was not measured",)))
    against = hindrances(device.state, device.state_after) if measured and device else ()
    trusted = _verdict(control, marked, blocks, judged, failures, against)
    return Timing(
        verdict=trusted,
        gated=bool(rules) or trusted.outcome is Outcome.FAIL,
        control=control,
        ratios=tuple(_ratios(found, list(measured))),
        processes=len(found),
        blocks=blocks,
        marked=marked,
        machine=machine_state.machine(found) if found else {},
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


def _control(found: Sequence[Run]) -> Control | None:
    both = [run for run in found if CONTROL in run["kinds"] and str(run["control"]) in run["kinds"]]
    if not both:
        return None
    kind = str(both[0]["control"])
    ratio, interval = bootstrap.ratio([(run[f"{CONTROL}.samples"], run[f"{kind}.samples"]) for run in both])
    return Control(kind, ratio, interval, even(ratio, interval))


def even(ratio: float, interval: Interval | None) -> bool:
    """Whether a ratio that should be 1 is, and is known well enough to tell variants apart."""
    if interval is None or interval.high > (1 + WIDEST_CONTROL) * interval.low:
        return False
    return interval.low <= 1 <= interval.high or abs(ratio - 1) < UNEVEN


def _ratios(found: Sequence[Run], kinds: Sequence[str]) -> list[Ratio]:
    """Every other kind against float32, or against the first where there is none."""
    base = BASE if BASE in kinds else next(iter(kinds), "")
    ratios = []
    for kind in kinds:
        both = [run for run in found if kind in run["kinds"] and base in run["kinds"]]
        if kind != base and both:
            pairs = [(run[f"{kind}.samples"], run[f"{base}.samples"]) for run in both]
            ratios.append(Ratio(kind, base, *bootstrap.ratio(pairs)))
    return ratios
