"""What a person reads of a golden bundle, and of what an app did with it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from harness.output.terminal.style import coloured, fit, grid
from harness.tools.app import AppReport, sentence
from harness.tools.golden import FILE, Golden


def bundle(golden: Golden, folder: Path) -> str:
    """What was written, and what to do with it."""
    kinds = Counter(image.kind.partition(",")[0] for image in golden.images)
    return fit(
        f"{golden.variant}: {len(golden.images)} images ({', '.join(f'{n} {kind}' for kind, n in kinds.items())})\n"
        f"written: {folder / FILE}, and tests in TypeScript, Kotlin and Swift; next: {folder / 'README.md'}"
    )


def app(report: AppReport) -> str:
    """What the app did, where answers changed, and the verdict."""
    lines = [
        f"{report.variant} in the app, {report.images} of the bundle's {report.images_in_bundle} images",
        f"input: {'not in the dump' if report.input is None else sentence(report.input)}",
        f"output: {'not in the dump' if report.output is None else sentence(report.output)}",
        "",
    ]
    rows = [
        (
            f"{stage.source} -> {stage.target}",
            f"{stage.flips} (-{stage.regressions} +{stage.improvements})",
            f"{stage.max_probability_difference:.4f}",
            f"{stage.mean_probability_difference:.4f}",
        )
        for stage in report.stages
    ]
    lines += [grid(rows, ("stage", "flips", "max |dp|", "mean |dp|")), ""] if rows else []
    lines += [f"verdict: {coloured(report.verdict.outcome)}", *(f"  {reason}" for reason in report.verdict.reasons)]
    return fit("\n".join(lines))
