"""A worker's process, wherever the worker itself runs: what it says, until it ends or is silent too long."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from dataclasses import dataclass
from typing import IO

from harness.core.progress import Progress

LINGERS_S = 2.0


@dataclass
class Said:
    """What was heard. ended: the exit code that the far shell reported; task and tail as in Ended."""

    task: str | None = None
    variant: str | None = None
    doing: str = ""
    pid: int | None = None
    ended: int | None = None
    silent: bool = False
    tail: str = ""


def start(command: list[str]) -> subprocess.Popen[str]:
    """A process in a session of its own, so that Ctrl-C is ours alone; the worker ends when its input is closed."""
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )


def follow(process: subprocess.Popen[str], progress: Progress, silence_limit_s: float) -> Said:
    """Read to the end of the stream. The process is over afterwards, stopped where need be, on Ctrl-C too."""
    assert process.stdout is not None
    assert process.stdin is not None
    lines: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process.stdout, lines), daemon=True)
    reader.start()
    said = Said()
    try:
        while (line := lines.get(timeout=silence_limit_s)) is not None:
            _hear(line.strip(), said, progress)
        process.wait(timeout=silence_limit_s)
    except (queue.Empty, subprocess.TimeoutExpired):
        said.silent = True
    finally:
        process.stdin.close()
        process.kill()
        process.wait()
        reader.join(LINGERS_S)  # ssh's master holds the other end, too, as long as the far worker lives
    return said


def _hear(line: str, said: Said, progress: Progress) -> None:
    try:
        message = json.loads(line)
        if "task" in message:
            said.task, said.variant = message["task"], message.get("variant")
            said.doing = message.get("doing", "")
            progress(message["task"], message["done"], message["total"])
        elif "pid" in message:
            said.pid = int(message["pid"])
        else:
            said.ended = int(message["ended"])
    except (ValueError, KeyError, TypeError):
        said.tail = line or said.tail  # the runtime's own chatter, or a traceback


def _read(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(None)
