"""The page that explains a variant, layer by layer."""

from __future__ import annotations

from functools import partial

import numpy as np
from matplotlib.figure import Figure

from harness.output.report.pages import fill, picture
from harness.output.report.style import bare
from harness.tools.explain import Explanation, short

RANKED = 20
MARKED = 5  # of them, in the profile


def render(explanation: Explanation) -> str:
    """HTML: the likely causes, the profile along the network, the layers that lose most."""
    worst = explanation.ranked[:RANKED]
    alt = "Signal to noise of each layer along the network. " + "; ".join(
        f"{short(layer.name)} loses {layer.lost_db:.1f} dB" for layer in worst[:3]
    )
    return fill(
        "explanation.html",
        explanation=explanation,
        worst=[(short(layer.name), layer) for layer in worst],
        profile=picture(partial(profile, explanation), alt),
    )


def profile(explanation: Explanation) -> Figure:
    """Signal to noise, and the clipped share beneath it, from the first layer to the last."""
    layers = explanation.layers
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    above, beneath = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    positions = [layer.position for layer in layers]
    snr = np.minimum([layer.snr_db for layer in layers], 60)
    above.plot(positions, snr, linewidth=1.2, color="C0")
    for rank, layer in enumerate(explanation.ranked[:MARKED], start=1):
        at = (layer.position, min(layer.snr_db, 60))
        above.plot(*at, "o", color="C1", markersize=5)
        above.annotate(str(rank), at, xytext=(5, 5 if rank % 2 else -11), textcoords="offset points", size=8)
    above.set(ylabel="signal to noise, dB", ylim=(min(0.0, float(snr.min()) - 3), max(float(snr.max()) * 1.15, 10)))
    clipped = [100 * (layer.clipped or 0) for layer in layers]
    beneath.fill_between(positions, clipped, step="mid", color="C1", alpha=0.7)
    beneath.set(ylabel="clipped, %", xlabel="layer", ylim=(0, max(1.0, 1.1 * max(clipped))))
    for axes in (above, beneath):
        bare(axes, "y")
        axes.margins(x=0.01)
    return figure
