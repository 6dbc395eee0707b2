"""What a person reads of a variant's layers, and of the self-test."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.output.formats.figures import percent
from harness.output.terminal.style import fit, grid
from harness.tools.explain import Explanation, short

if TYPE_CHECKING:
    from harness.tools.selftest import Case


def explanation(found: Explanation, layers: int) -> str:
    """The layers that lose most, and the likely causes."""
    rows = [
        (
            short(layer.name),
            layer.operation,
            f"{layer.lost_db:.1f} dB",
            f"{layer.snr_db:.1f} dB",
            f"{layer.cosine:.4f}",
            percent(layer.clipped),
            percent(layer.used),
        )
        for layer in found.ranked[:layers]
    ]
    headers = ("layer", "operation", "lost", "signal to noise", "cosine", "clipped", "range used")
    causes = found.causes or ("no cause stands out: no range clips, the input fits, no class is dead",)
    counted = f"{len(found.layers)} layers beside float32's on {found.images} images"
    return fit("\n".join([grid(rows, headers, left=2), "", *causes, counted]))


def cases(found: Sequence[Case]) -> str:
    """The self-test for a person: one row a case, how many held last."""
    rows = [
        ("ok" if case.held else "WRONG", case.name, case.expected, case.given, textwrap.shorten(case.shown, 80))
        for case in found
    ]
    held = sum(case.held for case in found)
    shown = grid(rows, ("", "case", "expected", "given", "reason"), left=5)
    return f"{shown}\n\n{held} of {len(found)} cases as expected"
