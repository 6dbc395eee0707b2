"""What a verdict means and what to do next, in a sentence."""

from __future__ import annotations

from harness.core.outcome import Outcome
from harness.output.formats.recommend import recommend
from harness.output.formats.runs import Runs
from harness.run.job import Ran

MARKS = {Outcome.PASS: "\N{WHITE HEAVY CHECK MARK}", Outcome.FAIL: "\N{CROSS MARK}", Outcome.INCONCLUSIVE: "\u2754"}


def sentence(runs: Runs) -> str:
    """The verdict for a person who reads nothing else."""
    images = f"{runs.records[0].data.images:,} images"
    processor = runs.records[0].machine.machine
    where = processor if len(runs.devices) == 1 else f"{len(runs.devices)} devices"
    by_outcome = {
        outcome: list(dict.fromkeys(row.name for _, _, row in runs.rows() if row.verdict.outcome is outcome))
        for outcome in Outcome
    }
    if failed := by_outcome[Outcome.FAIL]:
        does = "does" if len(failed) == 1 else "do"
        return f"{_listed(failed)} {does} not answer like the Keras model ({images}, {where})."
    if open_ones := by_outcome[Outcome.INCONCLUSIVE]:
        is_ = "is" if len(open_ones) == 1 else "are"
        return f"{_listed(open_ones)} {is_} neither proven nor refuted by this run ({images}, {where})."
    if runs.outcome is not Outcome.PASS:
        return f"Every variant answers like the Keras model ({images}, {where}), but its speed does not pass."
    subjects = {1: "The variant answers", 2: "Both variants answer"}
    subject = subjects.get(len(runs.cells), f"All {len(runs.cells)} variants answer")
    return f"{subject} like the Keras model, within the policy's limits ({images}, {where})."


def to_ship(runs: Runs) -> list[str]:
    """One sentence for each device and accelerator: which variant to ship, and why."""
    several = len(runs.devices) > 1
    return [
        f"{f'{best.device}, ' if several else ''}{best.accelerator}: ship {best.variant or 'none'}, {best.reason}"
        for best in recommend(runs)
    ]


def what_ran(ran: Ran) -> str:
    """What ran a cell, for a person: runtime, adapter, driver, precision, and how much of the model it took."""
    parts = [part for part in (ran.runtime, ran.adapter, ran.driver, ran.precision) if part]
    if ran.software:
        parts.append("in software (its answers count, its time is not measured)")
    if ran.taken is not None:
        rest = f" (not {', '.join(ran.not_taken)})" if ran.not_taken else ""
        parts.append(f"{ran.taken} of {ran.operations} operations{rest}")
    if ran.fell_back:
        parts.append("fell back to the CPU")
    return f"ran on {', '.join([*parts, *ran.warnings, *([ran.problem] if ran.problem else [])])}"


def next_step(runs: Runs) -> tuple[str, str] | None:
    """The next command to run and why. None if the reasons say enough."""
    for _, _, row in runs.rows():
        if row.verdict.outcome is not Outcome.FAIL or not row.parity:
            continue
        if row.accelerator != "cpu":
            command = f"harness explain {row.variant} --accelerator {row.accelerator}"
            return f"Which operation {row.accelerator} computes differently", command
        if row.variant != "float32":
            return f"Which layers change {row.name}'s predictions", f"harness explain {row.variant}"
    if runs.outcome is Outcome.PASS:
        return (
            "To judge later runs against this one, keep its record",
            "harness compare baseline/check.json runs/check.json",
        )
    return None


def _listed(kinds: list[str]) -> str:
    return kinds[0] if len(kinds) == 1 else f"{', '.join(kinds[:-1])} and {kinds[-1]}"
