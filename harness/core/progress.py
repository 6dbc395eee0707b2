"""How long work says what it is doing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

Progress = Callable[[str, int, int], None]  # task, done, total
Step = Callable[[str], AbstractContextManager[None]]  # a step's name
