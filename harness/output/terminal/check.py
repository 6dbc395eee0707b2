"""Runs on the terminal: tables and verdict of a check, two runs side by side, the flips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.core.outcome import Outcome, Verdict
from harness.judge import stages
from harness.judge.rules import points
from harness.output.formats import figures, words
from harness.output.formats.runs import device_name, overview
from harness.output.terminal.style import coloured, fit, grid
from harness.records.flips import flipped_images
from harness.records.record import CellRecord, Record

if TYPE_CHECKING:
    from harness.output.formats.runs import Runs
    from harness.records.compare import Comparison

ANSWERS = ("variant", "verdict", "accuracy", "drop", "interval", "flips", "max |dp|")
SPEED = ("variant", "size", "median", "p90", "speed-up", "interval", "memory")
MAX_PARTS = 5  # of a cell; the page shows more
MAX_PASSES_EXPLAINED = 4  # cells; of more, the reasons of those that pass are left to the page


def table(record: Record) -> str:
    """A record: predictions, costs, reasons, and the verdict last."""
    accelerators, places = overview(record)
    several, lines = len(accelerators) > 1, []
    if several:
        rows = [(variant, *map(_place, cells)) for variant, cells in places.items()]
        lines += [grid(rows, ("variant", *accelerators), left=len(accelerators) + 1), ""]
    for accelerator in accelerators:
        lines += [f"on {accelerator}"] * several
        cells = [cell for cell in record.cells if cell.accelerator == accelerator]
        lines += [_answers(record, cells), ""]
        if rows := [(cell.variant, *row) for cell in cells for row in figures.tensor_rows(cell)]:
            lines += [grid(rows, ("variant", *figures.TENSORS), left=2), ""]
        for what, title, parts in figures.parts_of(record):
            if rows := [(cell.variant, *row) for cell in cells for row in figures.part_rows(parts(cell), MAX_PARTS)]:
                lines += [f"{title}:", grid(rows, ("variant", *figures.part_headers(what)), left=3), ""]
        if accelerator == accelerators[0] or any(cell.latency for cell in cells):
            lines += [_speed(record, cells), ""]
    for cell in record.cells:
        if len(record.cells) <= MAX_PASSES_EXPLAINED or cell.verdict.outcome is not Outcome.PASS:
            lines += _explained(cell)
    if record.timing:
        counts = "" if record.timing.gated else " (the policy does not limit it)"
        lines += _reasons(f"latency{counts}", record.timing.verdict)
    lines += [*words.modes(record), *_test_set(record), *record.notes]
    data, machine = record.data, record.machine
    threads = record.plan.threads if record.plan else 1
    timed = f", {threads} thread{'s' if threads > 1 else ''} for latency" if record.timing else ""
    lines.append(
        f"{data.images} images of {data.folder}, {len(data.skipped)} skipped; {device_name(record)}: "
        f"{machine.runtime}, {machine.machine}{timed}"
    )
    lines.append(f"verdict: {coloured(record.outcome)}")
    return fit("\n".join(lines))


def tables(runs: Runs) -> str:
    """Each device's record, the verdict of all, and which variant to ship."""
    several = len(runs.devices) > 1
    parts = [f"{device}\n\n{table(record)}" if several else table(record) for device, record in runs.each()]
    if several:
        parts.append(f"verdict of {len(parts)} devices: {coloured(runs.outcome)}")
    return "\n\n".join([*parts, fit("\n".join(words.to_ship(runs)))])


def runs(comparison: Comparison) -> str:
    """Two runs: the later beside the earlier, cell by cell."""
    rows, lines = [], []
    for cell, judged in comparison.cells.items():
        parity, proven = judged.parity, judged.statistics
        shown = ("-",) * 5
        if parity and proven:
            drop = proven.drop_interval
            shown = (
                figures.percent(parity.reference_accuracy),
                figures.percent(parity.accuracy),
                f"{points(drop.low)} to {points(drop.high)}" if drop else figures.NONE,
                figures.flips(parity),
                f"{parity.max_probability_difference:.4f}",
            )
        rows.append((str(cell), coloured(judged.verdict.outcome), *shown))
        lines += _reasons(str(cell), judged.verdict)
    lines += [f"other {difference}" for difference in comparison.differences]
    lines.append(f"{comparison.after.data.images} images; {comparison.before.started} and {comparison.after.started}")
    headers = ("variant", "verdict", "before", "after", "drop", "flips", "max |dp|")
    return fit("\n".join([grid(rows, headers, left=2), "", *lines, f"verdict: {coloured(comparison.outcome)}"]))


def flips(runs: Runs) -> str:
    """The images whose prediction changed, of each variant on each device."""
    several = len(runs.devices) > 1
    rows = [
        (
            *([device] if several else []),
            str(flip.cell),
            flip.change,
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
    headers = (*(["device"] if several else []), "variant", "change", "image", "truth", "Keras", "prediction")
    return grid(rows, headers, left=len(headers))


def _answers(record: Record, cells: Sequence[CellRecord]) -> str:
    rows = []
    for cell in cells:
        f = figures.cell_figures(cell, record)
        shown = f.accuracy, f.drop, f.drop_interval, f.flips, f.largest
        rows.append((cell.variant, coloured(cell.verdict.outcome), *shown))
    return grid(rows, ANSWERS, left=2)


def _speed(record: Record, cells: Sequence[CellRecord]) -> str:
    rows = []
    for cell in cells:
        f = figures.cell_figures(cell, record)
        rows.append((cell.variant, f.size, f.median, f.p90, f.speedup, f.speedup_interval, f.memory))
    return grid(rows, SPEED)


def _place(cell: CellRecord | None) -> str:
    if cell is None:
        return "-"
    flips = f" {cell.parity.flips} flips" if cell.parity else ""
    return f"{coloured(cell.verdict.outcome)}{flips}"


def _explained(cell: CellRecord) -> list[str]:
    """A cell's reasons, what ran it, and where along the chain it lost most."""
    lines = _reasons(cell.name, cell.verdict)
    if cell.ran and cell.accelerator != "cpu":
        lines.append(f"  {words.what_ran(cell.ran)}")
    if worst := stages.lost_most(cell.stages):
        flipped = f"{worst.flips} flip{'' if worst.flips == 1 else 's'}"
        lines.append(
            f"  most is lost from {worst.source} to {worst.target}: {flipped}, "
            f"mean |dp| {worst.mean_probability_difference:.4f}"
        )
    return lines


def _reasons(name: str, verdict: Verdict) -> list[str]:
    return [f"{name}: {coloured(verdict.outcome)}", *(f"  {reason}" for reason in verdict.reasons)]


def _test_set(record: Record) -> list[str]:
    """What the test set can decide about any variant."""
    shown = next(((v.statistics, v.parity) for v in record.cells if v.statistics and v.parity), None)
    if not shown:
        return []
    proven, parity = shown
    if not proven.reference_accuracy:
        return []
    low, high = proven.reference_accuracy.low, proven.reference_accuracy.high
    interval = f"{proven.confidence:.0%} interval {low:.2%} to {high:.2%}"
    return [
        f"reference: accuracy {figures.percent(parity.reference_accuracy)}, {interval}",
        f"the smallest drop that {parity.images} images can certify: {points(proven.min_margin)} points",
    ]
