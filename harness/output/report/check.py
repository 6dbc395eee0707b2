"""The page of a check, on one device or several: verdict and reasons first, then the evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from harness.core import shapes
from harness.core.outcome import SEVERITY, Outcome
from harness.images.spec import UNKNOWN
from harness.judge import stages
from harness.output.formats import figures, words
from harness.output.formats.runs import Runs, overview
from harness.output.report import charts, choice, flips, plots
from harness.output.report.pages import fill, picture
from harness.records.record import CellRecord, Record
from harness.run.job import UNAVAILABLE
from harness.timing.figures import Timing
from harness.tools import metrics

TILES = 160  # in all; each is about a kilobyte, or three of a large photograph
TRANSITIONS_SHOWN = 12
FOLDED_FROM = 4  # cells; of more, the reasons of those that pass are folded away
DRAWN_FROM = 5  # changed predictions; fewer are read faster in the table
PARTS_SHOWN = 50  # of a cell
FIGURES_SHOWN = 6  # of devices over time, and of changed confusion matrices


def render(runs: Runs) -> str:
    """HTML of under 2 MB. Of many flips it shows the most confident ones, and says so."""
    first = runs.records[0]
    class_names = first.arrays.class_names
    rows = [_row(*row) for row in runs.rows()]
    by_outcome = sorted(rows, key=lambda row: -SEVERITY.index(row["cell"].verdict.outcome))
    return fill(
        "check.html",
        runs=runs,
        first=first,
        policy=shapes.to_builtins(first.policy),
        sentence=words.sentence(runs),
        to_ship=words.to_ship(runs),
        next_step=words.next_step(runs),
        overviews=[(device, *places) for device, record in runs.each() if len((places := overview(record))[0]) > 1],
        rows=rows,
        timed=any(cell.latency for _, _, cell in runs.rows()),
        ran=_what_ran(runs),
        open_rows=[row for row in by_outcome if len(by_outcome) <= FOLDED_FROM or not row["passed"]],
        folded_rows=[row for row in by_outcome if len(by_outcome) > FOLDED_FROM and row["passed"]],
        drops=_drops(runs),
        choices=[
            (device, picture(partial(choice.draw, points), points.alt))
            for device, record in list(runs.each())[:FIGURES_SHOWN]
            if (points := choice.choose(runs, device, record))
        ],
        latency=_latency(runs),
        over_time=[
            (device, picture(partial(charts.over_time, record), f"Block after block on {device}: {_spread(record)}."))
            for device, record in list(runs.each())[:FIGURES_SHOWN]
            if charts.steady(record)
        ],
        modes=[(device, cell.name, row) for device, _, cell in runs.rows() for row in figures.mode_rows(cell)],
        mode_headers=figures.MODES,
        mode_lines={device: list(words.modes(record)) for device, record in runs.each()},
        sustained=[
            (
                device,
                picture(partial(charts.sustained, courses), " ".join(f"{line}." for line in words.sustained(record))),
            )
            for device, record in list(runs.each())[:FIGURES_SHOWN]
            if (courses := words.courses(record))
        ],
        emulated=all(record.device.emulated for record in runs.records),
        states=[(device, _state(record.timing)) for device, record in runs.each() if record.timing],
        reference=_reference(first),
        changed=_changed(runs, class_names),
        tensors=[(device, cell.name, row) for device, _, cell in runs.rows() for row in figures.tensor_rows(cell)],
        tensor_headers=figures.TENSORS,
        part_tables=_parts(runs),
        outcomes=set(Outcome),
        nothing_changed=_nothing_changed(runs),
        galleries=_galleries(runs),
        chain=_chain(runs),
        worst={(device, cell.name): stages.lost_most(cell.stages) for device, _, cell in runs.rows()},
        several=len(runs.devices) > 1,
    )


def _what_ran(runs: Runs) -> dict[str, list[str]]:
    """The cells on accelerators, by what ran them in words."""
    cells: dict[str, list[str]] = {}
    for device, _, cell in runs.rows():
        if cell.ran and cell.accelerator != "cpu":
            where = f" on {device}" if len(runs.devices) > 1 else ""
            cells.setdefault(words.what_ran(cell.ran), []).append(f"{cell.name}{where}")
    return cells


def _row(device: str, record: Record, cell: CellRecord) -> dict[str, Any]:
    return {
        "device": device,
        "cell": cell,
        "figures": figures.cell_figures(cell, record),
        "passed": cell.verdict.outcome is Outcome.PASS,
    }


def _nothing_changed(runs: Runs) -> str:
    """What stands in place of changed predictions of one class an image, where there are none."""
    cells = [cell for _, _, cell in runs.rows()]
    if any(cell.parity for cell in cells):
        return "No variant changed a prediction."
    if any(cell.labels for cell in cells):
        return "The model gives several labels; how many of each changed is in the table of labels."
    return "The model gives no classes, so that no prediction can change."


def _parts(runs: Runs) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Tables of labels and of slices, if there are any: title, header and rows."""
    several = len(runs.devices) > 1
    tables = []
    for what, title, parts in figures.parts_of(runs.records[0]):
        rows = [
            (cell.name, *[device] * several, *row)
            for device, _, cell in runs.rows()
            for row in figures.part_rows(parts(cell), PARTS_SHOWN)
        ]
        headers = "variant", *["device"] * several, *figures.part_headers(what)
        if rows:
            tables.append((title.capitalize(), figures.without_dashes(headers, rows)))
    return tables


def _drops(runs: Runs) -> Any:
    drops = [
        f"{charts.label(runs, device, v.name)} {100 * s.drop:.2f}, {100 * s.drop_interval.low:.2f} to "
        f"{100 * s.drop_interval.high:.2f}, {100 * s.margin:.2f} allowed"
        for device, _, v in runs.rows()
        if (s := v.statistics) and s.drop is not None and s.drop_interval
    ]
    if not drops:
        return None
    alt = f"Drop in accuracy with its interval, and the drop allowed, in points. {'; '.join(drops)}"
    return picture(partial(charts.drops, runs), alt)


def _latency(runs: Runs) -> Any:
    if not any(cell.latency for _, _, cell in runs.rows()):
        return None
    alt = "Distribution of the time of one inference. " + "; ".join(
        f"{charts.label(runs, device, v.name)} median {figures.duration(v.latency.median)}"
        for device, _, v in runs.rows()
        if v.latency
    )
    return picture(partial(charts.latency, runs), alt)


def _spread(record: Record) -> str:
    """How far each variant's blocks spread, in words."""
    parts = []
    for kind, blocks in charts.blocks_of(charts.steady(record)).items():
        medians = np.array([median for _, median in blocks])
        low, high = medians.min() / np.median(medians), medians.max() / np.median(medians)
        parts.append(f"{kind}'s blocks took {low:.2f} to {high:.2f} of its median")
    return "; ".join(parts)


def _state(timing: Timing) -> list[tuple[str, str]]:
    """The device state and notes on the measurement, as (name, text)."""
    units = {"frequency_hz": ("frequency", 1e-9, " GHz"), "temperature_c": ("temperature", 1, " °C")}
    units |= {"battery_percent": ("battery", 1, " %"), "others_share": ("its cores busy with other work", 100, " %")}
    units |= {"throttled": ("throttling bits", 1, ""), "throttle_count": ("throttled", 1, " times")}
    facts, missing = [], []
    for name, reading in timing.machine.items():
        title, scale, unit = units.get(name, (name, 1, ""))
        if reading == UNAVAILABLE:
            missing.append(title)
            continue
        if isinstance(reading, Mapping):
            low, median, high = (f"{scale * reading[key]:.3g}" for key in ("lowest", "median", "highest"))
            reading = f"{low}{unit}" if low == high else f"{median}{unit} ({low} to {high})"
        elif isinstance(reading, list):
            reading = ", ".join(map(str, reading))
        facts.append((title, str(reading)))
    if timing.control:
        facts.append(("control", str(timing.control)))
    facts.append(("disturbed blocks", f"{len(timing.disturbed)} of {timing.blocks}, {timing.processes} processes"))
    if timing.disturbed:
        commonest = Counter(what for block in timing.disturbed for what in block.disturbances).most_common(3)
        facts.append(("disturbances", "; ".join(f"{what} ({count})" for what, count in commonest)))
    if missing:
        facts.append((UNAVAILABLE, ", ".join(missing)))
    return facts


def _reference(record: Record) -> dict[str, Any] | None:
    """The Keras model on its own. None if its outputs cannot be scored."""
    try:
        scores = metrics.score(record.arrays.reference, record.arrays.labels, record.arrays.class_names)
    except ValueError:
        return None
    worst = "; ".join(
        f"{truth} predicted as {answer}: {n}" for truth, answer, n in scores.confusions[:TRANSITIONS_SHOWN]
    )
    alt = f"The Keras model is right on {scores.right} of {scores.images} images. Most frequent mistakes: {worst}."
    return {"scores": scores, "picture": picture(partial(plots.confusion, scores), alt)}


def _changed(runs: Runs, class_names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The transitions of each cell that changed a prediction: truth, Keras's prediction, the variant's, how many."""
    in_matrix = class_names if len(class_names) <= plots.MAX_CLASSES else None
    names = (*class_names, UNKNOWN)  # UNLABELLED is the last
    changed: list[dict[str, Any]] = []
    for device, record, cell in runs.rows():
        answered = record.arrays.predictions()
        outputs = answered.cells.get(cell.cell)
        if outputs is None or not cell.parity or not cell.parity.flips:
            continue
        was, now = answered.reference.argmax(axis=1), outputs.argmax(axis=1)
        labelled = cell.parity.labelled
        triples = np.stack([answered.labels, was, now], axis=1)[was != now]
        kinds, counts = np.unique(triples, axis=0, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        moves = [(*(names[i] for i in kinds[n].tolist()), int(counts[n])) for n in order]
        drawn = None
        if labelled and len(changed) < FIGURES_SHOWN and len(triples) >= DRAWN_FROM:
            draw = partial(charts.changes, answered.reference, outputs, answered.labels, in_matrix)
            drawn = picture(draw, f"How {cell.name}'s confusion matrix differs from the reference's; as in the table.")
        changed.append(
            {
                "title": charts.label(runs, device, cell.name),
                "moves": moves[:TRANSITIONS_SHOWN],
                "more": len(moves) - TRANSITIONS_SHOWN,
                "picture": drawn,
            }
        )
    return changed


def _galleries(runs: Runs) -> list[tuple[str, flips.Gallery]]:
    groups = sum(len(gallery.groups) for record in runs.records for gallery in flips.galleries(record, shown=0))
    share = max(2, TILES // max(1, groups))
    shown = [flips.galleries(record, share) for record in runs.records]
    return [
        (charts.label(runs, device, gallery.cell.name), gallery)
        for device, of_device in zip(runs.devices, shown, strict=True)
        for gallery in of_device
        if gallery.flips
    ]


def _chain(runs: Runs) -> Any:
    steps = [(device, v, diff) for device, _, v in runs.rows() for diff in v.stages]
    if not steps:
        return None
    alt = "Change of a probability at each step. " + "; ".join(
        f"{charts.label(runs, device, v.name)}, {diff.source} to {diff.target}: mean "
        f"{diff.mean_probability_difference:.1e}, {diff.flips} flips"
        for device, v, diff in steps
    )
    return picture(partial(charts.stages, runs), alt)
