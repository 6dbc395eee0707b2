"""A run for a pull request: the verdict first, one table, reasons where something did not pass."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from harness.core.outcome import Outcome
from harness.output.formats import figures, words
from harness.output.formats.runs import Runs, overview
from harness.records.record import CellRecord

MAX_PARTS = 8  # of a cell
HEADERS = ("variant", "device", "", "accuracy", "drop (interval)", "flips", "size", "median", "speed-up")


def render(runs: Runs) -> str:
    """GitHub's Markdown."""
    several = len(runs.devices) > 1
    rows = []
    for device, record, row in runs.rows():
        texts = figures.cell_figures(row, record)
        outcome = row.verdict.outcome
        cells = (
            f"**{row.name}**",
            _text(device),
            f"{words.MARKS[outcome]} {outcome}",
            texts.accuracy,
            f"{texts.drop} ({texts.drop_interval})" if texts.drop_interval != figures.NONE else texts.drop,
            texts.flips,
            texts.size,
            texts.median,
            f"{texts.speedup} ({texts.speedup_interval})" if texts.speedup_interval != figures.NONE else texts.speedup,
        )
        rows.append(cells if several else (cells[0], *cells[2:]))
    headers = HEADERS if several else (HEADERS[0], *HEADERS[2:])
    lines = [
        f"## {words.MARKS[runs.outcome]} {runs.outcome}: {_text(runs.records[0].model.file)}",
        "",
        _text(words.sentence(runs)),
        "",
        *_overview(runs),
        _table(rows, headers),
        "",
        *_tensors(runs),
        *_parts(runs),
    ]
    lines += [
        f"- {words.MARKS[row.verdict.outcome]} **{row.name}**{f' on {_text(device)}' if several else ''}: "
        + _text("; ".join(row.verdict.reasons))
        for device, _, row in runs.rows()
        if row.verdict.outcome is not Outcome.PASS
    ]
    for device, record in runs.each():
        timing = record.timing
        if timing and timing.verdict.outcome is not Outcome.PASS:
            counts = "" if timing.gated else ", which does not count"
            lines.append(
                f"- latency on {_text(device)} {timing.verdict.outcome}{counts}: "
                + _text("; ".join(timing.verdict.reasons))
            )
        lines += [f"- {_text(device)}: {_text(note)}" for note in (*words.modes(record), *record.notes)]
    first = runs.records[0]
    lines += [
        *(f"- {_text(sentence)}" for sentence in words.to_ship(runs)),
        "",
        f"<sub>model `{first.model.sha256[:12]}`, images `{first.data.sha256[:12]}`, "
        f"{_text(first.machine.runtime)}, {first.started}. Drop: points of accuracy "
        "below the Keras model. Flips: predictions unlike its (-regressions +improvements).</sub>",
    ]
    return "\n".join(lines) + "\n"


def _tensors(runs: Runs) -> list[str]:
    """A row for each output that is no classes."""
    rows = [
        (f"**{cell.name}**", _text(device), *map(_text, row))
        for device, _, cell in runs.rows()
        for row in figures.tensor_rows(cell)
    ]
    return [_table(rows, ("variant", "device", *figures.TENSORS)), ""] if rows else []


def _parts(runs: Runs) -> list[str]:
    """A table of labels and one of slices, if there are any, the worst first."""
    lines: list[str] = []
    for what, title, parts in figures.parts_of(runs.records[0]):
        rows = [
            (f"**{cell.name}**", _text(device), *map(_text, row))
            for device, _, cell in runs.rows()
            for row in figures.part_rows(parts(cell), MAX_PARTS)
        ]
        if rows:
            headers, *rows = figures.without_dashes(("variant", "device", *figures.part_headers(what)), rows)
            lines += [f"{_text(title.capitalize())}:", "", _table(rows, headers), ""]
    return lines


def _overview(runs: Runs) -> list[str]:
    """Of each device with several accelerators: variants down, accelerators across."""
    lines = []
    for device, record in runs.each():
        accelerators, places = overview(record)
        if len(accelerators) > 1:
            rows = [(f"**{variant}**", *map(_place, cells)) for variant, cells in places.items()]
            lines += [_text(device), "", _table(rows, ("variant", *accelerators)), ""]
    return lines


def _place(cell: CellRecord | None) -> str:
    if cell is None:
        return figures.NONE
    flips = f", {cell.parity.flips} flips" if cell.parity else ""
    return f"{words.MARKS[cell.verdict.outcome]} {cell.verdict.outcome}{flips}"


def _table(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> str:
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True, colalign=["left"] * len(headers))


def _text(text: str) -> str:
    """Text that Markdown must not take for its own, in one line."""
    for mark in "\\|`*_<>[]":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())
