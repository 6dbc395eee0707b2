"""Progress on standard error: what, how far, how long; nothing of it where standard error is piped."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from tqdm import tqdm

from harness.core.progress import Progress

verbose = False  # set by --verbose: piped, too, a line for each step


@contextmanager
def step(name: str) -> Iterator[None]:
    """Names a step whose length nobody knows, and counts its seconds while it runs."""
    begin = time.monotonic()
    if not sys.stderr.isatty():
        yield
        if verbose:
            print(f"  {name}: {time.monotonic() - begin:.1f} s", file=sys.stderr, flush=True)
        return
    ended = threading.Event()

    def count() -> None:
        while not ended.wait(1):
            print(f"\r  {name} ... {time.monotonic() - begin:.0f} s", end="", file=sys.stderr, flush=True)

    print(f"  {name} ...", end="", file=sys.stderr, flush=True)
    counter = threading.Thread(target=count, daemon=True)
    counter.start()
    done = False
    try:
        yield
        done = True
    finally:
        ended.set()
        counter.join()
        print(f"\r  {name} ... {time.monotonic() - begin:.1f} s" if done else "", file=sys.stderr, flush=True)


class Bars:
    """One bar for each task, called with its name, what is done and the total; use with `with`."""

    def __enter__(self) -> Self:
        self._bar: tqdm[Any] | None = None
        self._task = ""
        self._lock = threading.Lock()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def for_device(self, uri: str) -> Progress:
        """Of one device: its tasks."""

        def progress(task: str, done: int, total: int) -> None:
            with self._lock:
                self(task if uri == "local" else f"{uri}: {task}", done, total)

        return progress

    def __call__(self, task: str, done: int, total: int) -> None:
        if task != self._task or self._bar is None:
            self.__exit__()
            self._bar = tqdm(total=total, desc=f"  {task}", disable=not sys.stderr.isatty())
            self._task = task
        self._bar.total = total
        self._bar.update(done - self._bar.n)
