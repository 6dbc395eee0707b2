"""Colours of figures, for light and for dark pages, and what all axes share.

Colour C0 is what is right, C1 what is wrong; series take the others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb

from harness.core.outcome import Outcome

SERIES = (("C0", "o"), ("C3", "s"), ("C2", "D"), ("C4", "^"), ("C5", "v"))
OUTCOMES = {Outcome.PASS: "C2", Outcome.INCONCLUSIVE: "C4", Outcome.FAIL: "C1"}


def _style(ink: str, quiet: str, lines: str, *cycle: str) -> dict[Any, Any]:
    return {
        "font.size": 9,
        "text.color": ink,
        "axes.labelcolor": quiet,
        "xtick.labelcolor": ink,
        "ytick.labelcolor": ink,
        "grid.color": lines,
        "axes.prop_cycle": cycler(color=cycle),
    }


LIGHT = _style("#1b1f24", "#59636e", "#d1d9e0", "#2563c9", "#c2410c", "#0f766e", "#7c3aed", "#a16207", "#be185d")
DARK = _style("#e6e9ed", "#9aa4b0", "#3d454f", "#6ea8fe", "#ff8f57", "#4fd1c5", "#b69cff", "#e0b341", "#f687b3")


def bare(axes: Axes, grid: str | None = None) -> None:
    """No frame and no ticks; fine lines across one axis ("x", "y"), where any."""
    if grid:
        axes.grid(axis="x" if grid == "x" else "y", linewidth=0.5)
        axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)


def cells(axes: Axes, names: tuple[str, ...] | None, classes: int) -> None:
    """Axes of a matrix of classes: truth down, answer across on top; lines between the cells where it has names."""
    axes.set(xlabel="answer", ylabel="truth")
    axes.xaxis.set(label_position="top", ticks_position="top")
    if names is not None:
        turned = 90 if max(map(len, names)) > 3 else 0
        axes.set_xticks(range(classes), names, rotation=turned)
        axes.set_yticks(range(classes), names)
        axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
        axes.grid(which="minor", linewidth=0.5)
    bare(axes)


def fade(colour: str) -> LinearSegmentedColormap:
    """A colour map from transparent to a colour, for light and dark pages."""
    red, green, blue = to_rgb(colour)
    return LinearSegmentedColormap.from_list(colour, [(red, green, blue, 0.0), (red, green, blue, 0.55)])
