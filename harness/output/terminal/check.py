"""What a person reads of runs: a check's table and verdict, two runs beside each other, the flips."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.core.outcome import Verdict
from harness.judge import stages
from harness.judge.rules import points
from harness.output.formats import figures
from harness.output.formats.runs import device_name
from harness.output.terminal.style import coloured, grid
from harness.records.flips import flipped_images
from harness.records.record import Record

if TYPE_CHECKING:
    from harness.output.formats.runs import Runs
    from harness.records.compare import Comparison

ANSWERS = ("variant", "verdict", "accuracy", "drop", "interval", "flips", "max |dp|")
SPEED = ("variant", "size", "median", "p90", "speed-up", "interval", "memory")


def table(record: Record) -> str:
    """The record for a person: what was answered, what it costs, the reasons, the verdict last."""
    shown = [(cell, figures.of(cell, record)) for cell in record.cells]
    answers = [
        (
            cell.name,
            coloured(cell.verdict.outcome),
            *(found.accuracy, found.drop, found.drop_interval, found.flips, found.largest),
        )
        for cell, found in shown
    ]
    speed = [
        (cell.name, *(found.size, found.median, found.p90, found.speedup, found.speedup_interval, found.memory))
        for cell, found in shown
    ]
    lines = [grid(answers, ANSWERS, left=2), "", grid(speed, SPEED), ""]
    for cell in record.cells:
        lines += _reasons(cell.name, cell.verdict)
        if worst := stages.lost_most(cell.stages):
            flipped = f"{worst.flips} flip{'' if worst.flips == 1 else 's'}"
            lines.append(
                f"  lost most at {worst.source} -> {worst.target}: {flipped}, "
                f"mean |dp| {worst.mean_probability_difference:.4f}"
            )
    if record.timing:
        counts = "" if record.timing.gated else " (no limit set: it does not count)"
        lines += _reasons(f"latency{counts}", record.timing.verdict)
    lines += _test_set(record)
    lines += record.notes
    data, machine = record.data, record.machine
    threads = record.plan.threads if record.plan else 1
    timed = f", {threads} thread{'s' if threads > 1 else ''} for latency" if record.timing else ""
    lines.append(
        f"{data.images} images of {data.folder}, {len(data.skipped)} skipped; {device_name(record)}: "
        f"{machine.runtime}, {machine.machine}{timed}"
    )
    lines.append(f"verdict: {coloured(record.outcome)}")
    return "\n".join(lines)


def tables(runs: Runs) -> str:
    """Several devices' records, one below the other, and the verdict of all."""
    if len(runs.records) == 1:
        return table(runs.records[0])
    parts = [f"{device}\n\n{table(record)}" for device, record in runs.each()]
    return "\n\n".join([*parts, f"verdict of {len(parts)} devices: {coloured(runs.outcome)}"])


def runs(found: Comparison) -> str:
    """Two runs for a person: the later beside the earlier, cell by cell."""
    rows = []
    for cell, judged in found.cells.items():
        parity, proven = judged.parity, judged.statistics
        shown = ("-",) * 5
        if parity and proven:
            low, high = proven.drop_interval.low, proven.drop_interval.high
            shown = (
                f"{parity.reference_accuracy:.2%}",
                f"{parity.accuracy:.2%}",
                f"{points(low)} to {points(high)}",
                f"{parity.flips} (-{parity.changes.broken} +{parity.changes.fixed})",
                f"{parity.largest_probability_difference:.4f}",
            )
        rows.append((str(cell), coloured(judged.verdict.outcome), *shown))
    lines = [grid(rows, ("variant", "verdict", "before", "after", "drop", "flips", "max |dp|"), left=2), ""]
    for cell, judged in found.cells.items():
        lines += _reasons(str(cell), judged.verdict)
    lines += [f"other {difference}" for difference in found.differences]
    lines.append(f"{found.after.data.images} images; {found.before.started} and {found.after.started}")
    lines.append(f"verdict: {coloured(found.outcome)}")
    return "\n".join(lines)


def flips(runs: Runs) -> str:
    """The images whose prediction changed, of each variant on each device."""
    several = len(runs.devices) > 1
    rows = [
        (
            *([device] if several else []),
            str(flip.cell),
            flip.sort,
            flip.name,
            flip.truth,
            f"{flip.expected} at {flip.expected_confidence:.2f}",
            f"{flip.answer} at {flip.answer_confidence:.2f}",
        )
        for device, record in runs.each()
        for flip in flipped_images(record)
    ]
    if not rows:
        return "no prediction changed"
    headers = (*(["device"] if several else []), "variant", "", "image", "truth", "Keras", "variant")
    return grid(rows, headers, left=len(headers))


def _reasons(name: str, verdict: Verdict) -> list[str]:
    return [f"{name}: {coloured(verdict.outcome)}", *(f"  {reason}" for reason in verdict.reasons)]


def _test_set(record: Record) -> list[str]:
    """What the images can show whatever the variant."""
    found = next(((v.statistics, v.parity) for v in record.cells if v.statistics and v.parity), None)
    if not found:
        return []
    proven, parity = found
    low, high = proven.reference_accuracy.low, proven.reference_accuracy.high
    interval = f"{proven.confidence:.0%} interval {low:.2%} to {high:.2%}"
    return [
        f"reference: accuracy {parity.reference_accuracy:.2%}, {interval}",
        f"the smallest drop that {parity.images} images can certify: {points(proven.smallest_certifiable_drop)} points",
    ]
