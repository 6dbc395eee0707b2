"""The figures that test_models.py measures, for the table at the end of a run."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from harness.core.cell import Cell


@dataclass(frozen=True)
class Setting:
    """What is benchmarked: a variant on an accelerator, with so many threads."""

    cell: Cell
    threads: int

    def __str__(self) -> str:
        return f"{self.cell}-{self.threads}"


FIGURES = pytest.StashKey[dict[Setting, dict[str, float]]]()  # of test_models.py, by setting
COLUMNS = {  # figure: heading, factor, format
    "size_bytes": ("size, MB", 1e-6, ".2f"),
    "memory_bytes": ("memory, MB", 1e-6, ".1f"),
    "load_s": ("load, ms", 1e3, ".1f"),
    "first_s": ("first, ms", 1e3, ".2f"),
    "median_s": ("median, ms", 1e3, ".2f"),
    "p90_s": ("p90, ms", 1e3, ".2f"),
    "images_per_s": ("images/s", 1, ".0f"),
}
