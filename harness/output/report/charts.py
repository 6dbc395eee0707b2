"""Figures of runs: drops in accuracy, changed answers, the chain, latency and the device over time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.output.formats.runs import Runs
from harness.output.report.style import OUTCOMES, SERIES, bare, cells, fade
from harness.records.record import Record
from harness.run.latency_run import LatencyRun
from harness.run.worker import CONTROL
from harness.timing.figures import OverTime

WIDTH = 5.4  # inches
SHOWN_UP_TO = 0.99  # of the samples; a rare outlier would flatten all else
STATES = {"frequency_hz": ("GHz", 1e-9), "temperature_c": ("°C", 1.0)}  # drawn where they could be read
LONGEST_NAME = 20  # of a device
FLOOR = 1e-9  # of a probability difference, where the scale ends
Array = npt.NDArray[Any]


def drops(runs: Runs) -> Figure:
    """Each variant's drop in accuracy with its interval, and the limit that it must stay below; for labelled images."""
    rows = [
        (label(runs, device, cell.name), cell.verdict.outcome, cell.statistics)
        for device, _, cell in runs.rows()
        if cell.statistics and cell.statistics.drop_interval
    ]
    figure, axes = _rows([name for name, _, _ in rows])
    axes.axvline(0, color=rcParams["axes.labelcolor"], linewidth=0.8)
    for row, (_, outcome, proven) in enumerate(rows):
        assert proven.drop is not None
        assert proven.drop_interval is not None
        low, drop, high = (100 * x for x in (proven.drop_interval.low, proven.drop, proven.drop_interval.high))
        colour = OUTCOMES[outcome]
        axes.plot([low, high], [row, row], color=colour, linewidth=2.5, solid_capstyle="round")
        axes.plot(drop, row, "o", color=colour, markersize=6)
        limit = 100 * proven.margin
        axes.plot([limit, limit], [row - 0.36, row + 0.36], color="C1", linewidth=1.8)
    axes.plot([], [], color="C1", linewidth=1.8, label="allowed")
    axes.set_xlabel("points of accuracy below the reference")
    figure.legend(loc="outside upper left", frameon=False)
    return figure


def changes(before: Array, after: Array, labels: Array, names: tuple[str, ...] | None) -> Figure:
    """How a variant's confusion matrix differs from the reference's: images more (+) and fewer (-) in each cell."""
    classes = before.shape[1]
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, after.argmax(axis=1)), 1)
    np.subtract.at(counts, (labels, before.argmax(axis=1)), 1)
    right = np.eye(classes, dtype=bool)
    better = np.where(right, counts, -counts)  # more on the diagonal, fewer beside it
    side = min(1.0 + 0.31 * classes, 6.5)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    most = max(1, int(np.abs(counts).max()))
    for colour, values in (("C0", better), ("C1", -better)):
        axes.imshow(np.maximum(values, 0), cmap=fade(colour), vmin=0, vmax=most)
    if names is not None:
        for truth, answer in np.argwhere(counts):
            text = f"{counts[truth, answer]:+d}".replace("-", "\N{MINUS SIGN}")
            axes.text(answer, truth, text, ha="center", va="center", size=7.5)
    cells(axes, names, classes)
    return figure


def stages(runs: Runs) -> Figure:
    """Each stage of the chain: mean to largest change of a probability, on a logarithmic scale."""
    steps = {(diff.source, diff.target): None for _, _, cell in runs.rows() for diff in cell.stages}
    figure, axes = _rows([f"{source} \N{RIGHTWARDS ARROW} {target}" for source, target in steps], height=0.5)
    series = list(runs.rows())
    marks = dict(zip(dict.fromkeys((device, v.name) for device, _, v in series), cycle(SERIES), strict=False))
    beside = {key: (i - (len(marks) - 1) / 2) * 0.7 / len(marks) for i, key in enumerate(marks)}
    for device, _, cell in series:
        colour, marker = marks[device, cell.name]
        for diff in cell.stages:
            row = list(steps).index((diff.source, diff.target)) + beside[device, cell.name]
            ends = [max(FLOOR, x) for x in (diff.mean_probability_difference, diff.max_probability_difference)]
            axes.plot(ends, [row, row], color=colour, linewidth=1.5, alpha=0.8)
            axes.plot(ends[0], row, marker, color=colour, markersize=5)
        if cell.stages:
            axes.plot([], [], marker, color=colour, label=label(runs, device, cell.name), markersize=5)
    axes.set(xscale="log", xlim=(FLOOR / 2, 2), xlabel="change of a probability: mean to largest")
    axes.minorticks_off()
    figure.legend(loc="outside upper left", frameon=False, ncols=2 if len(runs.devices) > 1 else 4)
    return figure


def latency(runs: Runs) -> Figure:
    """Every variant's samples as a density, median and 90th percentile marked."""
    rows = [
        (label(runs, device, cell.name), 1e3 * timed)
        for device, record, cell in runs.rows()
        if (timed := samples(record, cell.name)) is not None
    ]
    figure = Figure(figsize=(WIDTH, 0.5 + 0.75 * len(rows)), layout="constrained")
    for axes, (name, milliseconds) in zip(figure.subplots(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
        kept = milliseconds[milliseconds <= np.quantile(milliseconds, SHOWN_UP_TO)]
        axes.hist(kept, bins=min(60, max(10, len(kept) // 8)), color="C0", alpha=0.5)
        median, p90 = np.median(milliseconds), np.quantile(milliseconds, 0.9)
        axes.axvline(median, color=rcParams["text.color"], linewidth=1.5, label="median")
        axes.axvline(p90, color="C1", linewidth=1.5, label="90th percentile")
        axes.set_yticks([])
        axes.set_ylabel(name, rotation=0, ha="right", va="center", color=rcParams["text.color"])
        bare(axes, "x")
    axes.set_xlabel("milliseconds an inference, each variant on its own scale")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", frameon=False, ncols=2)
    return figure


def over_time(record: Record) -> Figure:
    """Every block's median beside its variant's, in the order they were run, and the device state meanwhile."""
    runs = steady(record)
    state = {name: values for name in STATES if np.isfinite(values := _state(runs, name)).any()}
    figure = Figure(figsize=(WIDTH, 2.6 + 0.9 * len(state)), layout="constrained")
    parts = figure.subplots(1 + len(state), 1, squeeze=False, sharex=True, height_ratios=[2.2, *[1] * len(state)])[:, 0]
    axes = parts[0]
    for (kind, blocks), (colour, marker) in zip(blocks_of(runs).items(), cycle(SERIES), strict=False):
        places, medians = np.array(blocks).T
        axes.plot(places, medians / np.median(medians), marker, color=colour, label=kind, markersize=3, alpha=0.8)
    axes.axhline(1, color=rcParams["axes.labelcolor"], linewidth=0.8)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.95), max(high, 1.05))
    axes.set_ylabel("relative time")
    ends = np.cumsum([len(run.order) for run in runs])
    if record.timing and record.timing.disturbed:
        begins = [0, *ends]
        disturbed = [begins[block.process - 1] + block.block for block in record.timing.disturbed]
        axes.plot(
            disturbed, np.full(len(disturbed), axes.get_ylim()[0]), "|", color="C1", label="disturbed", clip_on=False
        )
    for part in parts:
        for end in ends[:-1]:
            part.axvline(end - 0.5, color=rcParams["grid.color"], linewidth=1)
    figure.legend(loc="outside upper left", frameon=False, ncols=4, columnspacing=1)
    for part, (name, values) in zip(parts[1:], state.items(), strict=True):
        unit, scale = STATES[name]
        part.plot(values * scale, color="C4", linewidth=1.2)
        part.set_ylabel(unit)
    parts[-1].set_xlabel("block; lines between processes" if len(runs) > 1 else "block")
    for part in parts:
        bare(part, "y")
        part.margins(x=0.01)
    return figure


def sustained(rows: Sequence[tuple[str, OverTime]]) -> Figure:
    """Every sustained run: median and 90th percentile, where its plateau begins, and the device meanwhile."""
    read = [name for name in STATES if any(getattr(bucket, name) for _, course in rows for bucket in course.buckets)]
    figure = Figure(figsize=(WIDTH, 2.8 + 0.9 * len(read)), layout="constrained")
    parts = figure.subplots(1 + len(read), 1, squeeze=False, sharex=True, height_ratios=[2.4, *[1] * len(read)])[:, 0]
    longest = max(len(course.buckets) * course.bucket_s for _, course in rows)
    scale, unit = (1 / 60, "minutes") if longest > 120 else (1, "seconds")
    for (name, course), (colour, marker) in zip(rows, cycle(SERIES), strict=False):
        places = np.array([(bucket.begin_s + course.bucket_s / 2) * scale for bucket in course.buckets])
        levels = [(bucket.mean, bucket.median, bucket.p90) for bucket in course.buckets]
        mean, median, p90 = 1e3 * np.array(levels).T
        parts[0].plot(places, mean, linestyle="--", color=colour, linewidth=1)
        parts[0].plot(places, median, marker, linestyle="-", color=colour, label=name, markersize=4)
        parts[0].fill_between(places, median, p90, color=colour, alpha=0.2, linewidth=0)
        if course.plateau_s is not None:
            parts[0].axvline(course.plateau_s * scale, color=colour, linewidth=1, linestyle=":")
        for part, key in zip(parts[1:], read, strict=True):
            values = [getattr(bucket, key) or np.nan for bucket in course.buckets]
            part.plot(places, np.array(values) * STATES[key][1], color=colour, linewidth=1.2)
    parts[0].set_ylim(0, None)
    parts[0].set_ylabel("ms an inference")
    for part, key in zip(parts[1:], read, strict=True):
        part.set_ylabel(STATES[key][0])
    parts[-1].set_xlabel(f"{unit} without a pause; dotted: the plateau begins")
    figure.legend(loc="outside upper left", frameon=False, ncols=4, columnspacing=1)
    for part in parts:
        bare(part, "y")
        part.margins(x=0.01)
    return figure


def blocks_of(found: Sequence[LatencyRun]) -> dict[str, list[tuple[int, float]]]:
    """By kind, (place in the order of all processes, median seconds) of every block; the control left out."""
    blocks: dict[str, list[tuple[int, float]]] = {}
    place = 0
    for run in found:
        seen: Counter[str] = Counter()
        for cell in run.order:
            if cell != CONTROL:
                blocks.setdefault(cell, []).append((place, float(np.median(run.times[cell].samples[seen[cell]]))))
            seen[cell] += 1
            place += 1
    return blocks


def _state(found: Sequence[LatencyRun], name: str) -> Array:
    """A source's reading in the middle of every block. NaN if unavailable."""
    return np.concatenate([run.column(name)[:, 1] for run in found])


def label(runs: Runs, device: str, kind: str) -> str:
    """A row's name: the device only where there are several, and no more of it than there is room for."""
    if len(runs.devices) == 1:
        return kind
    return f"{kind}, {device if len(device) <= LONGEST_NAME else device[: LONGEST_NAME - 1] + '…'}"


def samples(record: Record, kind: str) -> Array | None:
    """Every timed inference of a variant, in seconds. None if it was not timed."""
    times = [run.times[kind].samples.ravel() for run in steady(record) if kind in run.times]
    return np.concatenate(times) if times else None


def steady(record: Record) -> list[LatencyRun]:
    """What its processes measured in the steady mode."""
    return [run for run in record.arrays.latency_runs() if run.mode == "steady"]


def _rows(names: Sequence[str], height: float = 0.36) -> tuple[Figure, Axes]:
    """Axes with one named row for each, the first on top."""
    figure = Figure(figsize=(WIDTH, 0.9 + height * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    bare(axes, "x")
    return figure, axes
