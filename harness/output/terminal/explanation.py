"""Explanations of a variant's layers, and the self-test, on the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.output.formats.figures import percent
from harness.output.terminal.style import fit, grid
from harness.tools.explain import Explanation, short
from harness.tools.explain_accelerator import Finding

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


def finding(found: Finding, kind: str, folder: Path) -> str:
    """The operation that an accelerator computes differently, and where the smallest file that shows it is."""
    on = f"on {found.accelerator}"
    if not found.operations or found.difference is None:
        return fit(f"{kind} {on} agrees with the CPU: its outputs differ by {found.whole}")
    (name, description), *others = found.operations
    before = f"{found.agree} of {found.operations_in_model} operations come before it and agree"
    together = f" and the next {len(others)} operations, which depart only together" if others else ""
    return fit(
        "\n".join(
            [
                f"{kind} {on} differs from the CPU: its outputs differ by {found.whole}",
                f"first wrong: {name} ({description}){together}",
                f"  by itself, on the CPU's inputs, its output differs by {found.difference}",
                f"  {before}",
                f"smallest failing file: {folder / 'case.tflite'}; python {folder / 'reproduce.py'} shows it",
            ]
        )
    )


def cases(found: Sequence[Case]) -> str:
    """The self-test: one row per case; last, how many ended as expected."""
    rows = [
        ("ok" if case.held else "WRONG", case.name, case.expected, case.outcome, textwrap.shorten(case.shown, 80))
        for case in found
    ]
    held = sum(case.held for case in found)
    shown = grid(rows, ("", "case", "expected", "given", "reason"), left=5)
    return f"{shown}\n\n{held} of {len(found)} cases as expected"
