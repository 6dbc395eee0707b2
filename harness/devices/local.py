"""This machine: the worker as a process of the same Python."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from harness.job import Job

SILENCE_LIMIT_S = 300.0

Progress = Callable[[str, int, int], None]  # task, done, total


@dataclass(frozen=True)
class Ended:
    """How a worker ended: exit code (negative: a signal), the task it was at, the end of what it said."""

    code: int | None  # none: it was silent too long and was stopped
    task: str | None
    tail: str
    variant: str | None = None  # that it was at, in a task of several


def run(
    job: Job, progress: Progress, *, python: str = sys.executable, silence_limit_s: float = SILENCE_LIMIT_S
) -> Ended:
    """Run a job's worker to its end. On Ctrl-C the worker is stopped first; finished results stay."""
    process = subprocess.Popen(
        [python, "-u", str(job.folder / "worker.py"), str(job.folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stdout is not None
    lines: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process.stdout, lines), daemon=True)
    reader.start()
    task, variant = None, None
    said: list[str] = []
    try:
        while (line := lines.get(timeout=silence_limit_s)) is not None:
            try:
                message = json.loads(line)
                task, done, total = message["task"], message["done"], message["total"]
            except (ValueError, KeyError, TypeError):
                said.append(line.strip())  # the runtime's own chatter, or a traceback
                continue
            variant = message.get("variant")
            progress(task, done, total)
        code: int | None = process.wait()
    except queue.Empty:
        code = None
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()
    return Ended(code, task, next((line for line in reversed(said) if line), ""), variant)


def _read(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)
