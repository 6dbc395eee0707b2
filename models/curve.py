"""The loss curve of a run as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter

from harness.core.files import write_atomic

SERIES = {"training": ("", "tab:blue"), "validation": ("val_", "tab:orange")}


def draw(history: Sequence[dict[str, float]], path: Path) -> None:
    """Write a PNG of loss (logarithmic) and error rate by epoch, for training and validation images."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss, error = figure.subplots(1, 2)
    for name, (prefix, colour) in SERIES.items():
        points = [(n, e) for n, e in enumerate(history, start=1) if f"{prefix}loss" in e]
        if points:
            epochs = [n for n, _ in points]
            style = {"color": colour, "marker": ".", "label": name}
            loss.plot(epochs, [e[f"{prefix}loss"] for _, e in points], **style)
            error.plot(epochs, [100 * (1 - e[f"{prefix}accuracy"]) for _, e in points], **style)
    loss.set_yscale("log")
    loss.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    low, high = loss.get_ylim()
    loss.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}") if high < 20 * low else NullFormatter())
    loss.set_ylabel("cross-entropy")
    error.set_ylabel("error rate, %")
    error.set_ylim(bottom=0)
    for axes in (loss, error):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_atomic(path, buffer.getvalue())
