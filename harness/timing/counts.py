"""Instructions and memory accesses of an inference: a measure that no noise moves."""

from __future__ import annotations

import numpy as np

from harness.core.errors import SetupError
from harness.core.npz import Array
from harness.core.shapes import Count, Shape
from harness.run.worker import EVENTS

LINE_BYTES = 64  # of a cache


class Counts(Shape):
    """Of one inference. traffic_bytes: between a first-level cache of 32 KB and what lies beyond.

    tool: counts of another one cannot be compared. baseline_instructions: of the same cell in the baseline.
    """

    instructions: Count
    memory_accesses: Count
    traffic_bytes: Count
    tool: str
    baseline_instructions: Count | None = None


def counts(counted: tuple[Array, str], baseline: Counts | None, where: str) -> Counts:
    """From what the worker counted. baseline: an earlier run's, ignored if another tool counted it.

    Raises SetupError: not such an array."""
    rows, tool = counted
    if rows.shape[1:] != (len(EVENTS),) or not len(rows):
        raise SetupError(f"{where}: counts of shape {rows.shape}, expected [inferences, {len(EVENTS)}]; run again")
    events = dict(zip(EVENTS, np.median(rows, axis=0).astype(np.int64).tolist(), strict=True))
    return Counts(
        instructions=events["Ir"],
        memory_accesses=events["Dr"] + events["Dw"],
        traffic_bytes=LINE_BYTES * (events["D1mr"] + events["D1mw"]),
        tool=tool,
        baseline_instructions=baseline.instructions if baseline and baseline.tool == tool else None,
    )
