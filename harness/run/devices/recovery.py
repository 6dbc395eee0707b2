"""A lost device may come back: a cable is plugged in again, a daemon restarts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from harness.run.devices.base import UnreachableError

RECONNECT_WITHIN_S = 30.0
PAUSE_S = 1.0

T = TypeVar("T")


def reconnect(connect: Callable[[], None], within_s: float | None = None) -> None:
    """Try until the device is back. Raises the last UnreachableError."""
    deadline = time.monotonic() + (RECONNECT_WITHIN_S if within_s is None else within_s)
    while True:
        try:
            return connect()
        except UnreachableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(PAUSE_S)


def recovered(action: Callable[[], T], recover: Callable[[], None]) -> T:
    """Do it, and once more where the device was lost and came back. Raises UnreachableError."""
    try:
        return action()
    except UnreachableError:
        recover()
        return action()
