"""One seam to another machine: a script in, exit code and output out.

A script's exit code is only believed where its end mark arrived, too: a cut connection may look like success.
"""

from __future__ import annotations

import queue
import secrets
import shlex
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from harness.run.devices.base import Executed, UnreachableError

TIMEOUT_S = 60.0
SLOWEST_BYTES_PER_S = 100_000.0


class Shell(Protocol):
    """A POSIX shell on another machine."""

    name: str

    def open(self) -> None:
        """Connect. Raises UnreachableError with the remedy."""

    def close(self) -> None: ...

    def reopen(self) -> None:
        """Connect again after a loss. Raises UnreachableError."""

    def command(self, script: str) -> list[str]:
        """The local command that runs a script there, its standard input and output passed through."""

    def put(self, local: Path, remote: str, timeout_s: float) -> Executed: ...

    def get(self, remote: str, local: Path, timeout_s: float) -> Executed: ...

    def why(self, error: str) -> str:
        """What keeps the machine from answering, and what to do; error: what the program said."""


def execute(shell: Shell, script: str, timeout_s: float = TIMEOUT_S) -> Executed:
    """Run a script. Raises UnreachableError where it did not end in time, or its end did not arrive."""
    mark = f"end-{secrets.token_hex(8)}"
    done = local(shell.command(f"(\n{script}\n)\necho {mark} $?"), timeout_s)
    if done is None:
        raise UnreachableError(f"{shell.name}: no answer within {timeout_s:.0f} s; {shell.why('')}")
    out, found, code = done.out.rpartition(f"{mark} ")
    if not found or not code.strip().isdecimal():
        raise UnreachableError(f"{shell.name}: {shell.why(done.error)}")
    return Executed(int(code), out, done.error)


def local(command: Sequence[str], timeout_s: float = TIMEOUT_S, given: str | None = None) -> Executed | None:
    """A program of this machine, in a session of its own so that Ctrl-C is ours alone; none where it took too long."""
    try:
        done = subprocess.run(
            command,
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        return None
    return Executed(done.returncode, done.stdout, done.stderr)


def transfer_timeout(size: int) -> float:
    return TIMEOUT_S + size / SLOWEST_BYTES_PER_S


def quoted(*words: str) -> str:
    return shlex.join(words)


def first_line(process: subprocess.Popen[str], timeout_s: float) -> str:
    """What a process says first; nothing where it ends or is silent too long."""
    lines: queue.Queue[str] = queue.Queue()
    stream = process.stdout
    assert stream is not None
    threading.Thread(target=lambda: lines.put(stream.readline()), daemon=True).start()
    try:
        return lines.get(timeout=timeout_s).strip()
    except queue.Empty:
        return ""
