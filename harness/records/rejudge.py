"""A stored check judged again from its arrays, the same way as when it was run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from harness.core.cell import Cell
from harness.core.errors import SetupError
from harness.core.outcome import Outcome, Verdict
from harness.judge import policy, predictions
from harness.judge.policy import Policy
from harness.judge.predictions import Predictions
from harness.records import record
from harness.records.record import CellRecord, Failure, Record
from harness.run.devices.base import DeviceRecord
from harness.run.job import Machine
from harness.run.latency_plan import LatencyPlan, Mode
from harness.run.latency_run import LatencyRun
from harness.timing import limits as latency_limits
from harness.timing import verdict
from harness.timing.counts import Counts, counts
from harness.timing.figures import Latency, Ratio, Timing
from harness.timing.limits import Exact


def rejudge(path: Path, other_policy: Path | None = None) -> Record:
    """A stored check judged again from its arrays, by its own policy or another.

    Raises SetupError: a damaged or altered record, and one whose own policy now gives another verdict.
    """
    stored = record.read(path)
    limits = policy.load(other_policy) if other_policy else stored.policy
    answered = stored.arrays.predictions()
    runs = stored.arrays.latency_runs()
    figures = verdict.by_mode(runs)
    cells = tuple(
        replace(
            _rejudged(cell, answered, limits, stored.data.incomplete),
            counts=_recounted(cell, stored),
            **latency_of(cell.cell, figures),
        )
        for cell in stored.cells
    )
    timing = judge_latency(
        runs,
        figures,
        limits,
        stored.machine,
        stored.device,
        stored.plan,
        stored.failures,
        stored.timing.changes if stored.timing else (),
        cells,
    )
    outcome = verdict.overall([cell.verdict for cell in cells], timing)
    if other_policy is None:
        changed = [
            f"{old.name} {old.verdict.outcome}, its outputs give {new.verdict.outcome}"
            for old, new in zip(stored.cells, cells, strict=True)
            if old.verdict.outcome is not new.verdict.outcome
        ]
        if changed or outcome is not stored.outcome:
            what = "; ".join(changed) or f"{stored.outcome} of all, its variants and their latency give {outcome}"
            raise SetupError(f"{path}: says {what}: altered, or of another version; run harness check again")
    return replace(stored, cells=cells, outcome=outcome, policy=limits, timing=timing)


def judge_latency(
    runs: Sequence[LatencyRun],
    figures: Mapping[Mode, Mapping[str, Latency]],
    limits: Policy,
    machine: Machine,
    device: DeviceRecord,
    plan: LatencyPlan | None,
    failures: Iterable[Failure],
    changes: Sequence[Ratio],
    cells: Sequence[CellRecord],
) -> Timing | None:
    """The latency verdict. None if latency was neither measured nor asked for; asked for only, it is INCONCLUSIVE."""
    failed = [failure.verdict for failure in failures if failure.kind == "latency"]
    rules = latency_limits.rules_for(limits.latency, latency_limits.device_names(machine, device.uri))
    if not (figures or failed or rules):
        return None
    exact = {cell.name: Exact(cell.size_bytes, cell.counts) for cell in cells}
    return verdict.judge(runs, figures, plan.threads if plan else 1, rules, failed, changes, device, exact)


def _recounted(cell: CellRecord, stored: Record) -> Counts | None:
    """Counts from the arrays, beside the baseline's of the time."""
    counted = stored.arrays.counts(cell.cell)
    before = cell.counts and cell.counts.baseline_instructions
    return replace(counts(counted, None, cell.name), baseline_instructions=before) if counted else None


def latency_of(cell: Cell, figures: Mapping[Mode, Mapping[str, Latency]]) -> dict[str, Any]:
    """The keys of a cell's record that hold its latency."""
    modes = {mode: measured[str(cell)] for mode, measured in figures.items() if str(cell) in measured}
    return {"latency": modes.pop("steady", None), "latency_modes": modes}


def _rejudged(cell: CellRecord, answered: Predictions, limits: Policy, incomplete: str) -> CellRecord:
    if cell.cell in answered.cells:
        judged = predictions.not_passed(predictions.judge(cell.cell, answered, limits), incomplete)
        judged = predictions.accelerated(judged, cell.ran, limits.limits(cell.cell))
        return replace(cell, **vars(judged))
    if cell.verdict.outcome is Outcome.PASS:
        return replace(cell, verdict=Verdict(Outcome.FAIL, ("no outputs: nothing to compare",)))
    return cell
