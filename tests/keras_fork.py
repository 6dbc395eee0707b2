"""Keras processes forked from one that has TensorFlow loaded: a fresh process in a moment instead of five seconds.

python -m tests.keras_fork SOCKET: imports the heavy packages once, then forks a child for each connection. It has run
nothing of TensorFlow itself, so that every child is as fresh as a process of its own.
"""

from __future__ import annotations

import array
import importlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

HEAVY = ("tensorflow", "keras", "litert_quantizer", "ai_edge_litert.interpreter")


class Forked:
    """What KerasProcess uses of subprocess.Popen."""

    def __init__(self, where: str, arguments: list[str], stderr: IO[bytes], env: dict[str, str]) -> None:
        to_child, stdin = os.pipe()
        stdout, from_child = os.pipe()
        self.stdin, self.stdout = os.fdopen(stdin, "wb"), os.fdopen(stdout, "rb")
        self._link = socket.socket(socket.AF_UNIX)
        self._link.connect(where)
        files = array.array("i", [to_child, from_child, stderr.fileno()])
        about = json.dumps({"arguments": arguments, "env": env, "cwd": str(Path.cwd())}).encode()
        self._link.sendmsg([about], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
        self._link.shutdown(socket.SHUT_WR)
        os.close(to_child)
        os.close(from_child)
        self._answers = self._link.makefile()
        self.pid = int(self._answers.readline())
        self._code: int | None = None

    def kill(self) -> None:
        if self._code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, 9)

    def wait(self) -> int:
        if self._code is None:
            self._code = int(self._answers.readline())
        return self._code

    def communicate(self) -> None:
        self.stdin.close()
        self.stdout.close()
        self.wait()
        self._answers.close()
        self._link.close()


@contextmanager
def server() -> Iterator[str]:
    """The address of a server that ends with the `with`."""
    with tempfile.TemporaryDirectory(prefix="harness-fork-") as folder:
        where = str(Path(folder) / "socket")
        root = str(Path(__file__).parent.parent)
        env = {
            "TF_CPP_MIN_LOG_LEVEL": "2",
            **os.environ,
            "PYTHONPATH": os.pathsep.join([root, *filter(None, sys.path)]),
        }
        command = [sys.executable, "-m", "tests.keras_fork", where]
        with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            while not Path(where).exists() and process.poll() is None:
                time.sleep(0.02)
            yield where
            process.kill()


def main(where: str) -> None:
    listening = socket.socket(socket.AF_UNIX)
    with suppress(ImportError):
        for name in HEAVY:
            importlib.import_module(name)
    listening.bind(where + ".new")
    listening.listen()
    Path(where + ".new").rename(where)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        link, _ = listening.accept()
        threading.Thread(target=_serve, args=(link,), daemon=True).start()


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(0)


def _serve(link: socket.socket) -> None:
    about, files = _received(link)
    pid = os.fork()
    if pid == 0:
        _child(about, files)
    for file in files:
        os.close(file)
    with suppress(OSError):
        link.sendall(f"{pid}\n".encode())
    _, status = os.waitpid(pid, 0)
    with suppress(OSError):
        link.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    link.close()


def _received(link: socket.socket) -> tuple[dict[str, Any], list[int]]:
    size = array.array("i").itemsize
    content, ancillary, _, _ = link.recvmsg(1 << 20, socket.CMSG_SPACE(3 * size))
    while part := link.recv(1 << 20):
        content += part
    files = array.array("i")
    for _, _, carried in ancillary:
        files.frombytes(carried[: len(carried) - len(carried) % size])
    return json.loads(content), list(files)


def _child(about: dict[str, Any], files: list[int]) -> None:
    from converters import keras_process

    os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.environ.clear()
    os.environ.update(about["env"])
    os.chdir(about["cwd"])
    sys.path[:] = about["env"]["PYTHONPATH"].split(os.pathsep)
    sys.stdin, sys.stdout = os.fdopen(0, "r"), os.fdopen(1, "w")
    code = 1
    try:
        keras_process.serve(*about["arguments"])
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1])
