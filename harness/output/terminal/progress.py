"""Progress on standard error: the step, how far it is, for how long. Not shown if standard error is piped."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Self

from harness.core.progress import Progress

if TYPE_CHECKING:
    from rich import progress as rich_progress

verbose = False  # set by --verbose: where piped, print a line for each step


@contextmanager
def step(name: str) -> Iterator[None]:
    """Show a step of unknown length and its seconds while it runs; then print how long it took."""
    begin = time.monotonic()
    if not sys.stderr.isatty():
        yield
        if verbose:
            print(f"  {name}: {time.monotonic() - begin:.1f} s", file=sys.stderr, flush=True)
        return
    with _display as bars:
        task = bars.add_task(name, total=None, counts="")
        try:
            yield
            bars.console.print(f"  {name}: {time.monotonic() - begin:.1f} s", markup=False, highlight=False)
        finally:
            bars.remove_task(task)


class Bars:
    """One bar for each device, called with a task's name, what is done and the total; this machine's by itself."""

    def __enter__(self) -> Self:
        self._lock = threading.Lock()
        self._tasks: dict[str, tuple[str, rich_progress.TaskID]] = {}  # by device: the task shown, its bar
        self._shown = sys.stderr.isatty()
        if self._shown:
            _display.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            for _task, bar in self._tasks.values():
                _display.bars.remove_task(bar)
            _display.__exit__()

    def __call__(self, task: str, done: int, total: int) -> None:
        self._update("", task, done, total)

    def for_device(self, uri: str) -> Progress:
        """The progress of one device's tasks, for any thread."""
        return partial(self._update, "" if uri == "local" else uri)

    def _update(self, device: str, task: str, done: int, total: int) -> None:
        if not self._shown:
            return
        with self._lock:
            shown, bar = self._tasks.get(device, ("", None))
            if bar is None:
                bar = _display.bars.add_task("", total=total, counts="")
            if task != shown:
                _display.bars.reset(bar, description=f"{device}: {task}" if device else task)
            self._tasks[device] = task, bar
            _display.bars.update(bar, completed=done, total=total, counts=f"{done}/{total}", visible=done < total)


class _Display:
    """The terminal's only live display, shared by steps and bars: started by the first, stopped by the last."""

    def __init__(self) -> None:
        self._users = 0
        self._lock = threading.Lock()

    def __enter__(self) -> rich_progress.Progress:
        with self._lock:
            self._users += 1
            if self._users == 1:
                self.bars = _bars()
                self.bars.start()
            return self.bars

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self.bars.stop()


def _bars() -> rich_progress.Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    name = TextColumn("  {task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    counts = TextColumn("{task.fields[counts]}", table_column=Column(justify="right"))
    return Progress(
        name,
        BarColumn(bar_width=20),
        counts,
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
    )


_display = _Display()
