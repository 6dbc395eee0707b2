"""Two things timed in turn, several times over, so that what slows the machine slows both."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

from harness.run.worker import text


def has_amx() -> bool:
    """Whether the processor has matrix units for int8 and bfloat16, which change what can be gained."""
    return "amx_bf16" in text("/proc/cpuinfo")


def seconds(action: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def ratio(ours: Callable[[], float], theirs: Callable[[], float], repetitions: int) -> tuple[float, float, float]:
    """Median of the quotients of two figures measured in turn, and the median of each."""
    pairs = [(ours(), theirs()) for _ in range(repetitions)]
    return median(a / b for a, b in pairs), median(a for a, _ in pairs), median(b for _, b in pairs)
