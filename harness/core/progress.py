"""How long-running work reports its progress."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

Progress = Callable[[str, int, int], None]  # task, done, total; may be called from any thread, and again unchanged
Step = Callable[[str], AbstractContextManager[None]]  # a step's name


class Bars(Protocol):
    """Progress of several devices at once."""

    def for_device(self, uri: str) -> Progress: ...


class NoBars:
    """Shows nothing."""

    def for_device(self, uri: str) -> Progress:
        return lambda task, done, total: None


NO_BARS = NoBars()
