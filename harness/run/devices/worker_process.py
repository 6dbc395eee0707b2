"""A worker's process, wherever the worker itself runs: its messages, until it ends or is silent too long."""

from __future__ import annotations

import queue
import re
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import IO, Annotated

import msgspec

from harness.core.progress import Progress
from harness.run.devices import shell
from harness.run.devices.base import Ended

LINGERS_S = 2.0
POLL_S = 0.5
MAX_WAITING_LINES = 1_000


class Message(msgspec.Struct):
    """A line of the worker, or of the shell that runs it (`ended`, its exit code)."""

    task: str | None = None
    done: int = 0
    total: int = 0
    variant: str | None = None
    doing: str = ""
    pid: Annotated[int, msgspec.Meta(gt=1)] | None = None
    ended: Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None


@dataclass
class Heard:
    """The last of each message. tail: the last line that is none, as Ended has it. silent: it was stopped for that."""

    task: str | None = None
    variant: str | None = None
    doing: str = ""
    done: int = 0
    total: int = 0
    pid: int | None = None
    ended: int | None = None
    silent: bool = False
    tail: str = ""

    def with_code(self, code: int | None) -> Ended:
        return Ended(code, self.task, self.tail, self.variant, self.doing)


def start(command: list[str], stderr: int = subprocess.STDOUT) -> subprocess.Popen[str]:
    """A process in a session of its own, so that Ctrl-C is ours alone; the worker ends when its input is closed."""
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        errors="replace",
        start_new_session=True,
    )


def follow(process: subprocess.Popen[str], progress: Progress, silence_limit_s: float, mark: str = "") -> Heard:
    """Read to the end of the stream; lines count from the one that holds the mark.

    The process has ended afterwards, stopped if need be, on Ctrl-C too.
    """
    assert process.stdout is not None
    assert process.stdin is not None
    lines: queue.Queue[str | None] = queue.Queue(MAX_WAITING_LINES)
    stopped = threading.Event()
    reader = threading.Thread(target=_read, args=(process.stdout, lines, stopped), daemon=True)
    reader.start()
    heard = Heard()
    begun = not mark
    try:
        while (line := _next(lines, heard, progress, silence_limit_s)) is not None:
            if begun:
                _hear(line, heard, progress)
            begun = begun or mark in line
        process.wait(timeout=silence_limit_s)
    except (queue.Empty, subprocess.TimeoutExpired):
        heard.silent = True
    finally:
        process.stdin.close()
        process.kill()
        process.wait()
        stopped.set()
        while not lines.empty():  # the reader may wait for room
            lines.get()
        reader.join(LINGERS_S)  # ssh's master holds the other end, too, as long as the far worker lives
    return heard


def _next(lines: queue.Queue[str | None], heard: Heard, progress: Progress, silence_limit_s: float) -> str | None:
    """The next line, None at the end; meanwhile progress is called again and again, as it may stop the run.

    Raises queue.Empty at the end of the silence limit.
    """
    deadline = time.monotonic() + silence_limit_s
    while True:
        left = deadline - time.monotonic()
        try:
            return lines.get(timeout=max(0, min(POLL_S, left)))
        except queue.Empty:
            if left <= 0:
                raise
            if heard.task is not None:
                progress(heard.task, heard.done, heard.total)


def _hear(line: str, heard: Heard, progress: Progress) -> None:
    try:
        message = msgspec.json.decode(line, type=Message)
    except (msgspec.DecodeError, UnicodeError, RecursionError):  # a library's output, or a traceback
        if not re.match(r"INFO: |I\d{4} ", line):
            heard.tail = shell.plain(line) or heard.tail
        return
    if message.task is not None:
        heard.task, heard.variant, heard.doing = message.task, message.variant, shell.plain(message.doing)
        heard.done, heard.total = message.done, message.total
        progress(message.task, message.done, message.total)
    heard.pid = message.pid or heard.pid
    heard.ended = heard.ended if message.ended is None else message.ended


def _read(stream: IO[str], lines: queue.Queue[str | None], stopped: threading.Event) -> None:
    with stream:
        while line := stream.readline(shell.MAX_LINE):
            if not stopped.is_set():
                lines.put(line)
    lines.put(None)
