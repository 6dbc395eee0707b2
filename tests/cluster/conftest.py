"""A real lab on loopback: a scheduler and workers in processes of their own, and a check to spread over them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.cluster.client import Cluster
from harness.cluster.security import Keys
from tests.check.rig import check as check
from tests.conftest import ROOT


def wait_for(what: Callable[[], Any], seconds: float = 60) -> Any:
    """What a function gives once it gives something."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.02)
    return found


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


WITHOUT_ADB = str(Path(sys.executable).parent)  # else phones of this host would be the lab's, too


@dataclass
class Lab:
    """Processes by name; `address` is the scheduler's."""

    folder: Path
    port: int = field(default_factory=free_port)
    flags: tuple[str, ...] = ()
    processes: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"{'tls' if self.flags else 'tcp'}://127.0.0.1:{self.port}"

    def scheduler(self, *more: str) -> None:
        self._start("scheduler", "lab", "scheduler", "--port", str(self.port), *more, *self.flags)

    def worker(self, name: str, code: Path = ROOT) -> None:
        self._start(name, "lab", "worker", self.address, "--name", name, *self.flags, code=code)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        process = self.processes.pop(name)
        process.send_signal(number)
        process.wait(timeout=30)

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def ready(self, *names: str) -> None:
        wait_for(lambda: all("offered to" in self.said(name) for name in names))

    def cluster(self, patience_s: float = 30) -> Cluster:
        return Cluster(self.address, patience_s=patience_s)

    def _start(self, name: str, *arguments: str, code: Path = ROOT) -> None:
        with (self.folder / f"{name}.log").open("w") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "harness", *arguments],
                cwd=code,
                env={**os.environ, "PYTHONPATH": str(code), "TMPDIR": str(self.folder), "PATH": WITHOUT_ADB},
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )


@contextmanager
def opened(folder: Path) -> Iterator[Lab]:
    """A lab without any process yet; all are ended at the end."""
    lab = Lab(folder)
    try:
        yield lab
    finally:
        for name in list(lab.processes):
            lab.kill(name, signal.SIGTERM)


@pytest.fixture
def empty_lab(tmp_path: Path) -> Iterator[Lab]:
    """A lab without any process yet."""
    with opened(tmp_path) as lab:
        yield lab


def start(lab: Lab, *more: str) -> Lab:
    """Its scheduler, and the workers `one` and `two`, each with this machine as its device."""
    lab.scheduler(*more)
    lab.worker("one")
    lab.worker("two")
    lab.ready("one", "two")
    return lab


@pytest.fixture
def lab(empty_lab: Lab) -> Lab:
    """A lab of two workers, of which a test may kill any process."""
    return start(empty_lab)


@pytest.fixture(scope="session")
def standing_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab of two workers for all tests that leave it as it is."""
    with opened(tmp_path_factory.mktemp("lab")) as lab:
        yield start(lab)


def make_certificate(folder: Path) -> Keys:
    """An authority, and one certificate that every role shares."""
    authority = "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=lab"
    request = "req -newkey rsa:2048 -nodes -keyout key.pem -out request.pem -subj /CN=host"
    signed = "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days 2"
    folder.mkdir(exist_ok=True)
    for command in (authority, request, signed):
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
    return Keys(*(folder / f"{name}.pem" for name in ("ca", "cert", "key")))


def tls_flags(keys: Keys) -> tuple[str, ...]:
    return "--tls-ca", str(keys.ca), "--tls-cert", str(keys.cert), "--tls-key", str(keys.key)
