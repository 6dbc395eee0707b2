"""Results of the tools that time variants and examine the machine."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from harness.output.formats.figures import duration
from harness.output.terminal.style import fit, grid
from harness.tools.doctor import Advice
from harness.tools.litert_benchmark import Comparison


def advice(found: Sequence[Advice]) -> str:
    """What to change, most harmful first; then what cannot be changed but should be known."""
    todo = [one for one in found if one.todo]
    lines = [f"{place}. {one.seen}\n   {one.todo}" for place, one in enumerate(todo, start=1)]
    lines += [f"note: {one.seen}" for one in found if not one.todo]
    return fit("\n".join([*lines, "change these from the top, and ask again" if todo else "nothing to change"]))


def benchmark(results: Sequence[Comparison]) -> str:
    """Median latency of both sides, the median of the turns' ratios, and how far these spread."""
    rows = []
    for result in results:
        ratios = sorted(turn.ratio for turn in result.turns)
        ours, theirs = (duration(median(getattr(turn, side) for turn in result.turns)) for side in ("ours", "theirs"))
        rows.append((result.kind, ours, theirs, f"{median(ratios):.3f}", f"{ratios[0]:.3f} to {ratios[-1]:.3f}"))
    return grid(rows, ("variant", "ours", "litert-benchmark", "ours / theirs", "range over turns"))
