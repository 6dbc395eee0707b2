"""What device tests share: one small check, run on any device, and a cable that can be cut."""

from __future__ import annotations

import os
import re
import shlex
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harness.check import pipeline, subject
from harness.check.engine import LocalEngine
from harness.check.pipeline import CheckedRun
from harness.check.references import KerasReferences
from harness.check.subject import Subject
from harness.core.cell import Cell
from harness.core.errors import SetupError
from harness.core.progress import NO_BARS
from harness.images import shards
from harness.judge import policy
from harness.judge.policy import Policy
from harness.records.record import Record
from harness.run.devices.virtual import Virtual
from harness.run.latency_plan import LatencyPlan
from tests.conftest import FEW_IMAGES_POLICY, quiet_step

Progress = Callable[[str, int, int], None]
PLAN = LatencyPlan(processes=2, turns=1, block_s=0.002, warmup_s=0.01)


def silent(task: str, done: int, total: int) -> None:
    pass


@contextmanager
def at(task: str, action: Callable[[], object]) -> Iterator[Progress]:
    """Progress that does something once, when a task begins; an error if that never happens."""
    fired: list[str] = []

    def progress(current: str, done: int, total: int) -> None:
        if current == task and not fired:
            fired.append(current)
            action()

    yield progress
    assert fired, f"the task {task} never began"


@dataclass
class OnDevice:
    """How a check on one device ended."""

    run: CheckedRun | None
    problem: SetupError | None


@dataclass(frozen=True)
class Shown:
    """Progress of devices, but not of what this machine computes to compare."""

    progress: Progress

    def for_device(self, uri: str) -> Progress:
        return silent if uri == "this machine" else self.progress


@dataclass
class Rig:
    """A small check, and what this machine answers to it."""

    models: Path
    model: Path
    images: Path
    kinds: tuple[str, ...] | None = None
    limits: Policy = field(default_factory=lambda: policy.load(FEW_IMAGES_POLICY))
    plan: LatencyPlan | None = PLAN
    local: Record = field(init=False)

    def subject(self) -> Subject:
        return subject.load(self.models, self.model, self.limits, self.kinds, self.plan)

    def check_all(self, *devices: str, progress: Progress = silent, keep: bool = False) -> list[OnDevice]:
        what = self.subject()
        source = shards.open_source(self.images, what.spec)
        checks = [pipeline.Check(what, source, (device,), Path("not written")) for device in devices]
        with (
            KerasReferences(self.model, self.models, quiet_step) as references,
            LocalEngine(devices, Shown(progress), keep=keep) as engine,
        ):
            results = pipeline.run_all(checks, engine, references, NO_BARS)
        return [
            OnDevice(None, result) if isinstance(result, SetupError) else OnDevice(result, None) for result in results
        ]

    def check(self, address: str, progress: Progress = silent, *, keep: bool = False) -> OnDevice:
        (done,) = self.check_all(address, progress=progress, keep=keep)
        return done

    def same(self, done: OnDevice) -> Record:
        """The record of a check that ended as on this machine, every output the same."""
        assert done.run, done.problem
        record = done.run.record
        for here, there in zip(self.local.cells, record.cells, strict=True):
            assert (there.cell, there.verdict.outcome) == (here.cell, here.verdict.outcome), there.verdict.reasons
            assert np.array_equal(record.arrays.raw_answers(here.cell), self.local.arrays.raw_answers(here.cell))
            assert there.host is not None
            assert there.host.identical == there.host.images
        return record

    def same_but_one(self, done: OnDevice, reason: str) -> None:
        """One variant, the one that a signal caught, is INCONCLUSIVE for that reason; the others' outputs are there."""
        assert done.run, done.problem
        (caught,) = (kind for kind, text in reasons(done.run.record).items() if reason in text)
        assert reasons(done.run.record)[caught].startswith("INCONCLUSIVE")
        arrays = done.run.record.arrays
        for cell in (Cell(kind) for kind in self.subject().variants if kind != caught):
            assert np.array_equal(arrays.raw_answers(cell), self.local.arrays.raw_answers(cell))


def pushed(record: Record) -> Mapping[str, int]:
    """Bytes that a check sent to its device, by what they were."""
    return record.device.traffic.pushed_bytes


def reasons(record: Record) -> dict[str, str]:
    return {cell.name: f"{cell.verdict.outcome}: {'; '.join(cell.verdict.reasons)}" for cell in record.cells}


def harness_folder(device: Virtual) -> Path:
    """The harness's folder on a virtual device, seen from this machine."""
    return device.root / (
        "data/local/tmp/tflite-harness" if (device.root / "system").is_dir() else "home/pi/.cache/tflite-harness"
    )


@dataclass
class Here:
    """A shell of this machine in a home of its own, as that of a device; real, quick, and as hostile as a test wants.

    banner: a script that every login runs first. forgetful: every command is carried out, but what it answers the first
    time is lost with the connection; a lock ends with it. lost: those commands.
    """

    home: Path
    banner: str = "true"
    name: str = "here://"
    forgetful: bool = False
    lost: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        (self.home / "bin").mkdir(parents=True)

    def program(self, name: str, script: str) -> None:
        """Put a program before all others of that name."""
        path = self.home / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def reopen(self) -> None:
        pass

    def command(self, script: str) -> list[str]:
        path = f"{self.home / 'bin'}:{os.environ['PATH']}"
        always = re.sub(r"-[0-9a-f]{16}|\d{4}-\d\d-\d\d \d\d:\d\d", "", script)  # without marks and times
        if self.forgetful and always not in self.lost:
            self.lost.add(always)
            script = f"exec 3<&0; ({script}) <&3 >/dev/null 2>&1{'</dev/null' if 'flock' in script else ''}; exit 255"
        login = f"cd; {self.banner}; exec sh -c {shlex.quote(script)}"
        return ["env", f"HOME={self.home}", f"PATH={path}", "sh", "-c", login]

    def explain(self, error: str) -> str:
        return f"{error.strip() or 'cut'}; run again"


@dataclass
class Cable:
    """A TCP connection to a port through which a device is reached, that can be cut and can damage what it carries.

    cut_after: bytes to the device after which everything is cut. damage: bytes to look for; one of them is changed,
    damage_times times.
    """

    target: int
    cut_after: int | None = None
    damage: bytes = b""
    damage_times: int = 0
    carried: int = 0
    cuts: int = 0
    cut_for_good: bool = False
    refuses: bool = False
    _pairs: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, *, for_good: bool = False) -> None:
        self.refuses = for_good
        self.cuts += bool(self._pairs)
        for end in self._pairs:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._pairs = []

    def close(self) -> None:
        self.cut(for_good=True)
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            try:
                if self.refuses:
                    raise OSError
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                near.close()
                continue
            self._pairs += [near, far]
            threading.Thread(target=self._carry, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._carry, args=(far, near, False), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, outwards: bool) -> None:
        try:
            while part := source.recv(1 << 20):
                if self.damage_times and self.damage and self.damage in part:
                    self.damage_times -= 1
                    changed = bytearray(part)
                    changed[part.index(self.damage)] ^= 1
                    part = bytes(changed)
                target.sendall(part)
                if outwards:
                    self.carried += len(part)
                    if self.cut_after is not None and self.carried > self.cut_after:
                        self.cut_after = None
                        self.cut(for_good=self.cut_for_good)
        except OSError:
            pass
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()
