"""Figures of an evaluation, for pages and notebooks alike, in the colours of matplotlib's current settings.

LIGHT and DARK are settings to choose from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.output.report.style import DARK as DARK
from harness.output.report.style import LIGHT as LIGHT
from harness.output.report.style import SERIES, bare, cells, fade
from harness.tools.evaluate import Evaluation
from harness.tools.metrics import Scores

MAX_CLASSES = 24  # drawn one by one; of more, the worst, and a confusion matrix without numbers


def confusion(scores: Scores) -> Figure:
    """The confusion matrix: right answers on the diagonal, wrong ones shaded by their number."""
    counts = scores.confusion
    classes = len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(1.0 + 0.31 * classes, 6.5)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    diagonal = np.eye(classes, dtype=bool)
    shown = {"C0": np.where(diagonal, shares, 0), "C1": np.where(diagonal, 0, counts)}
    for colour, values in shown.items():
        axes.imshow(values, cmap=fade(colour), vmin=0, vmax=max(float(values.max()), 1.0))
    few = classes <= MAX_CLASSES
    if few:
        for truth, answer in np.argwhere(counts):
            weight = "normal" if truth == answer else "bold"
            axes.text(answer, truth, str(counts[truth, answer]), ha="center", va="center", size=7.5, weight=weight)
    cells(axes, scores.class_names if few else None, classes)
    return figure


def by_class(scores: Scores) -> Figure:
    """Precision, recall and F1 of each class on one line; of many classes, those of the lowest F1."""
    return _lines(
        {
            "precision": [c.precision for c in scores.classes],
            "recall": [c.recall for c in scores.classes],
            "F1": [c.f1 for c in scores.classes],
        },
        scores.class_names,
    )


def compare(evaluations: Sequence[Evaluation]) -> Figure:
    """F1 of each class, several models of equal class count on one line."""
    names = evaluations[0].scores.class_names
    return _lines({str(done.model): [c.f1 for c in done.scores.classes] for done in evaluations}, names, "F1")


def gallery(evaluation: Evaluation, images: Sequence[int], columns: int = 8) -> Figure:
    """Images by their index, titled "truth → answer"; wrong answers coloured, with their confidence."""
    if not images:
        figure = Figure(figsize=(3, 0.4))
        figure.text(0, 0.5, "no image", va="center")
        return figure
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(columns * 1.05, rows * 1.4), layout="constrained")
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.set_axis_off()
    for axes, index in zip(figure.axes, images, strict=False):
        _image(axes, evaluation, index)
    return figure


def _image(axes: Axes, evaluation: Evaluation, index: int) -> None:
    truth, answer = evaluation.name(evaluation.data.labels[index]), evaluation.name(evaluation.answers[index])
    image = evaluation.data.images[index]
    if evaluation.data.spec.input:
        axes.plot(image.reshape(len(image), -1), linewidth=0.8)
    else:
        axes.imshow(image, cmap="gray", vmin=0, vmax=255)
    title, colour = f"{truth} → {answer}", rcParams["text.color"]
    if truth != answer:
        title, colour = f"{title}\n{evaluation.confidences[index]:.2f}", "C1"
    axes.set_title(title, size=9, color=colour)


def _lines(series: Mapping[str, Sequence[float | None]], class_names: Sequence[str], label: str = "") -> Figure:
    """A line a class, a marker a series; the axis begins below the lowest share."""
    values = np.array([[np.nan if share is None else share for share in shares] for shares in series.values()])
    worst = np.argsort(np.fmin.reduce(values), kind="stable")  # classes without a share come last
    total, shown = len(worst), np.sort(worst[:MAX_CLASSES])
    values = values[:, shown]
    low, high = np.fmin.reduce(values), np.fmax.reduce(values)
    columns = 3 if max(map(len, series)) < 12 else 1
    height = 0.6 + 0.2 * -(-len(series) // columns) + max(0.24, 0.07 * len(series)) * len(shown)
    figure = Figure(figsize=(4.4, height), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(shown))
    axes.hlines(rows, low, high, color=rcParams["grid.color"], linewidth=2)
    beside = (np.arange(len(series)) - (len(series) - 1) / 2) * 0.6 / len(series)  # equal shares stay visible
    for name, shares, offset, (colour, marker) in zip(series, values, beside, cycle(SERIES), strict=False):
        axes.plot(shares, rows + offset, marker, color=colour, label=name, clip_on=False, markersize=5, alpha=0.9)
    lowest = float(np.nanmin(low))
    which = "class" if values.shape[1] == total else f"class (the {MAX_CLASSES} weakest of {total})"
    axes.set(yticks=rows, yticklabels=[class_names[i] for i in shown], ylabel=which, xlabel=label)
    axes.set_xlim(lowest - max(0.04 * (1 - lowest), 0.005), 1)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.xaxis.set_major_formatter(lambda share, _: f"{share * 100:g}%")
    bare(axes, "x")
    figure.legend(loc="outside upper center", ncols=columns, frameon=False)
    return figure
