"""What is judged: a cell is a variant on an accelerator, of the record's one device and runtime.

Its text names the task of a job, the key of a result, the prefix of a record's arrays and the row of a table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Self, get_args

from harness.core.errors import SetupError, nearest

Accelerator = Literal["cpu", "cpu-compiled", "gpu", "gpu-fp32", "npu", "wasm", "webgpu"]
ACCELERATORS: tuple[Accelerator, ...] = get_args(Accelerator)
BROWSERS: tuple[Accelerator, ...] = ("wasm", "webgpu")  # what a browser has, and nothing else
NATIVE = tuple(name for name in ACCELERATORS if name not in BROWSERS)


def accelerators(names: Iterable[str]) -> tuple[Accelerator, ...]:
    """Accelerators by name. Raises SetupError: none, or an unknown one, with the nearest valid name."""
    known = {str(accelerator): accelerator for accelerator in ACCELERATORS}
    names = tuple(names)
    if not names:
        raise SetupError(f"no accelerator: expected one or more of {', '.join(known)}")
    for name in names:
        if name not in known:
            raise SetupError(f"{name}: unknown; {nearest(name, known)}")
    return tuple(known[name] for name in names)


@dataclass(frozen=True, order=True)
class Cell:
    """str(): the variant alone on the CPU's interpreter, else variant@accelerator."""

    variant: str
    accelerator: Accelerator = "cpu"

    def __str__(self) -> str:
        return self.variant if self.accelerator == "cpu" else f"{self.variant}@{self.accelerator}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The cell that a text names. Raises SetupError."""
        for accelerator in ACCELERATORS:
            cell = cls(text.partition("@")[0], accelerator)
            if cell.variant and str(cell) == text:
                return cell
        raise SetupError(
            f"{text!r}: expected a variant's name, or VARIANT@ACCELERATOR with one of {', '.join(ACCELERATORS[1:])}"
        )
