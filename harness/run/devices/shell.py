"""The one seam to another machine: a script in; exit code, output and error output out.

A login may print before the script does, so output counts from a begin mark on. An exit code counts only where the end
mark arrived too: a cut connection may look like success. What the other side sends is capped.
"""

from __future__ import annotations

import os
import queue
import secrets
import shlex
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Protocol

from harness.core.errors import SetupError
from harness.run.devices.base import Executed, UnreachableError

TIMEOUT_S = 60.0
MIN_BYTES_PER_S = 100_000.0  # of a transfer
MAX_OUTPUT_BYTES = 4_000_000
MAX_LINE = 4_000  # characters
MAX_SHOWN = 600
DISK_FULL = "No space left on device"


class Shell(Protocol):
    """A POSIX shell on another machine."""

    name: str

    def open(self) -> None:
        """Connect. Raises UnreachableError with the remedy."""

    def close(self) -> None: ...

    def reopen(self) -> None:
        """Connect again after a loss. Raises UnreachableError."""

    def command(self, script: str) -> list[str]:
        """The local command that runs a script there, with its standard input and output passed through."""

    def explain(self, error: str) -> str:
        """Why the machine does not answer, and what to do. error: what the local command printed."""


def execute(shell: Shell, script: str, timeout_s: float = TIMEOUT_S, stdin: IO[bytes] | None = None) -> Executed:
    """Run a script. Raises UnreachableError where it did not end in time, or its end did not arrive."""
    code, out, error = _run(shell, script, timeout_s, MAX_OUTPUT_BYTES, stdin)
    return Executed(code, out.decode(errors="replace"), error)


def send(shell: Shell, local: Path, remote: str) -> Executed:
    """Copy a file there. A full disk is data: see Executed.error. Raises UnreachableError."""
    with local.open("rb") as file:
        return execute(shell, f"cat > {quoted(remote)}", transfer_timeout(local.stat().st_size), file)


def fetch(shell: Shell, remote: str, size: int) -> bytes:
    """The first `size` bytes of a file there. Raises UnreachableError."""
    script = f"head -c {size} < {quoted(remote)}"
    return _run(shell, script, transfer_timeout(size), size + MAX_OUTPUT_BYTES)[1]


def _run(
    shell: Shell, script: str, timeout_s: float, max_bytes: int, stdin: IO[bytes] | None = None
) -> tuple[int, bytes, str]:
    mark = secrets.token_hex(8)
    begin, end = f"begin-{mark}\n".encode(), f"end-{mark} ".encode()
    marked = f"echo begin-{mark}; echo begin-{mark} >&2\n(\n{script}\n)\necho end-{mark} $?"
    done = capture(shell.command(marked), timeout_s, max_bytes, stdin)
    if done is None:
        raise UnreachableError(f"{shell.name}: no answer within {timeout_s:.0f} s; {shell.explain('')}")
    _, out, printed = done
    error = printed.decode(errors="replace").rpartition(begin.decode())[2]
    _, begun, out = out.partition(begin)
    out, ended, code = out.rpartition(end)
    if begun and ended and code.strip().isdigit():
        return int(code), out, error
    if DISK_FULL in error:  # adb may close the connection on a sender whose reader has failed
        return 1, out, error
    raise UnreachableError(f"{shell.name}: {shell.explain(printed.decode(errors='replace'))}")


def local(command: Sequence[str], timeout_s: float = TIMEOUT_S) -> Executed | None:
    """Run a program of this machine. None if it takes longer."""
    done = capture(command, timeout_s, MAX_OUTPUT_BYTES)
    return done and Executed(done[0], done[1].decode(errors="replace"), done[2].decode(errors="replace"))


def capture(
    command: Sequence[str], timeout_s: float, max_bytes: int, stdin: IO[bytes] | None = None
) -> tuple[int, bytes, bytes] | None:
    """Exit code, output and error output of a program, in a session of its own so that Ctrl-C is ours alone.

    None if it takes longer. Raises SetupError where it prints more than max_bytes.
    """
    process = subprocess.Popen(
        command,
        stdin=stdin or subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    deadline = time.monotonic() + timeout_s
    streams = process.stdout, process.stderr
    parts: list[bytearray] = [bytearray(), bytearray()]
    readers = [
        threading.Thread(target=_read, args=(stream, part, max_bytes, process), daemon=True)
        for stream, part in zip(streams, parts, strict=True)
    ]
    try:
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(max(0.0, deadline - time.monotonic()))
        code = process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return None
    finally:
        process.kill()
        process.wait()
    if max(map(len, parts)) > max_bytes:
        raise SetupError(f"{command[0]}: printed more than {max_bytes / 1e6:g} MB; expected less")
    return code, bytes(parts[0]), bytes(parts[1])


def _read(stream: IO[bytes], part: bytearray, max_bytes: int, process: subprocess.Popen[bytes]) -> None:
    with stream:
        while len(part) <= max_bytes and (content := os.read(stream.fileno(), 1 << 16)):
            part += content
    if len(part) > max_bytes:
        process.kill()


def transfer_timeout(size: int) -> float:
    return TIMEOUT_S + size / MIN_BYTES_PER_S


def quoted(*words: str) -> str:
    return shlex.join(words)


def plain(text: str) -> str:
    """The last line of what another machine printed, as far as it is fit for a terminal."""
    line = next(filter(None, (line.strip() for line in reversed(text.splitlines()))), "")
    return "".join(letter if letter.isprintable() else " " for letter in line[:MAX_SHOWN])


def answer(process: subprocess.Popen[str], mark: str, timeout_s: float) -> str | None:
    """What a process prints after a mark, to the end of that line. None if it ends first, or is silent too long."""
    lines: queue.Queue[str | None] = queue.Queue()
    stream = process.stdout
    assert stream is not None

    def read() -> None:
        while line := stream.readline(MAX_LINE):
            if mark in line:
                return lines.put(line.partition(mark)[2].strip())
        return lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    try:
        return lines.get(timeout=timeout_s)
    except queue.Empty:
        return None
