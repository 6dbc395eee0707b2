"""A browser that opens a page: `web://`. The page is the worker, in LiteRT.js; its results come back by hash.

The server stays until the process ends, so that one page serves all shards of a check.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np

from harness.artifacts import model_tensors
from harness.core import npz, shapes
from harness.core.errors import AbsentError, SetupError
from harness.core.files import write_atomic
from harness.core.npz import Array
from harness.core.progress import Progress
from harness.run import job as jobs
from harness.run import worker
from harness.run.devices import litert_js, recovery, shell
from harness.run.devices.adb import Adb
from harness.run.devices.base import SILENCE_LIMIT_S, Ended, Executed, Probe, Traffic, UnreachableError
from harness.run.devices.web_messages import Header, Hello
from harness.run.devices.web_server import Offer, Server
from harness.run.job import About, Job, Machine

LOOPBACK = "127.0.0.1"
OPEN_WITHIN_S = 600.0
LOOK_AGAIN_S = 10.0  # a silent phone's way here is made anew
FRONT = "keep the page in front and the screen on, and run again"
SECURE = "plain http gives it on loopback only: use web://?adb=SERIAL, or https by ?certificate=FILE&key=FILE"


@cache
def server(where: str, address: str, port: int, tls: tuple[str, str] | None) -> Server:
    return Server(where, address, port, tls)


class Web:
    """A browser, not yet opened. adb: opens the page on an attached phone. progress: called while it is waited for.

    tls: files of a certificate and its key.
    """

    def __init__(
        self,
        uri: str,
        address: str = LOOPBACK,
        port: int = 0,
        adb: Adb | None = None,
        tls: tuple[str, str] | None = None,
        progress: Progress = lambda task, done, total: None,
    ) -> None:
        self.uri = uri
        self._place = address, port, tls
        self._adb, self._progress = adb, progress
        self._reversed = ""  # the phone's port that leads here
        self.traffic = Traffic()

    def __enter__(self) -> Self:
        self._server = server(self.uri, *self._place)
        self._session = self._server.session
        if self._adb:
            self._adb.open()
            self._reverse()
        return self

    def __exit__(self, *_: object) -> None:
        self._session.begin(None)
        if self._adb and self._reversed:
            shell.local(["adb", "-s", self._adb.serial, "reverse", "--remove", f"tcp:{self._reversed}"], 20)

    def probe(self) -> Probe:
        """Waits for a browser. Raises UnreachableError if none comes."""
        hello = self._session.hello or self._wait()
        architecture = hello.architecture or "unknown"
        return Probe(
            uri=self.uri,
            name=shell.plain(hello.model or hello.name),
            machine=shell.plain(architecture),
            system=shell.plain(f"{hello.system}, {hello.name}"),
            cores=hello.cores,
            state={
                "secure_context": hello.secure,
                "clock_s": hello.clock_s,
                "webgpu": shell.plain(hello.gpu.name if hello.gpu else hello.gpu_problem) or "unavailable",
            },
        )

    def push(self, job: Job) -> Job:
        """Raises AbsentError: the browser has no WebGPU, and the job asks for it."""
        hello = self._session.hello
        if hello and "webgpu" in job.accelerators and not hello.gpu:
            remedy = "use a browser that has it (Chrome, Edge, Safari 26)" if hello.secure else SECURE
            raise AbsentError(
                f"{self.uri}: --accelerator webgpu: {shell.plain(hello.name)} has none "
                f"({shell.plain(hello.gpu_problem)}); {remedy}, or --accelerator wasm"
            )
        return job

    def run(self, job: Job, progress: Progress, *, silence_limit_s: float = SILENCE_LIMIT_S) -> Ended:
        """Offers the page the tasks up to the next that wants a process of its own."""
        plan = json.loads(job.plan.read_text())
        waiting = [task for task in plan["tasks"] if not job.result_path(task["name"]).exists()]
        if threaded := [task["name"] for task in waiting if task.get("threads", 1) > 1]:
            raise SetupError(f"{self.uri}: --threads: a page runs {threaded[0]} on one thread; leave it out")
        if any(task.get("mode") == worker.COLD for task in waiting):
            raise SetupError(f"{self.uri}: --cold: a page's files are never on its disk; leave it out")
        alone = [number for number, task in enumerate(waiting) if task.get("fresh")]
        tasks = waiting[: max(1, alone[0])] if alone else waiting
        files = {path.name: (path, what) for path, what in job.files().items()}
        offer = Offer(
            plan["nonce"],
            json.dumps(_for_page(job, plan, tasks)).encode(),
            files,
            lambda header, arrays: self._store(job, plan, header, arrays),
            self.traffic,
            {task["name"] for task in tasks},
        )
        self._session.begin(offer)
        try:
            return self._follow(progress, silence_limit_s)
        finally:
            self._session.begin(None)

    def pull(self, job: Job) -> None:
        """They are here already."""

    def program(
        self,
        path: Path,
        arguments: Sequence[str],
        job: Job,
        timeout_s: float,
        inputs: Mapping[str, bytes] | None = None,
    ) -> Executed:
        raise SetupError(f"{self.uri}: a page cannot run {path.name}; name the device itself: adb://SERIAL")

    def _follow(self, progress: Progress, silence_limit_s: float) -> Ended:
        """Until the page has ended. Raises UnreachableError: it is closed, silent too long, loaded again and again."""
        session, looked = self._session, time.monotonic()
        while True:
            with session.changed:
                session.changed.wait(0.5)
                last, problem, hello = session.last, session.problem, session.hello
                silent = time.monotonic() - session.heard
                limit = recovery.RECONNECT_WITHIN_S if session.closed else silence_limit_s
                how = "was closed" if session.closed else f"was silent for {silence_limit_s:.0f} s"
            if last.ended is not None:
                return Ended(last.ended, last.task, shell.plain(last.tail), last.variant)
            if last.task is not None:
                progress(last.task, last.done, last.total)
            else:
                progress("waiting for the page", 0, 0)
            if silent > limit:
                name = shell.plain(hello.name) if hello else "a browser"
                during = f" during {last.task}" if last.task else ""
                problem = f"the page ({name}) {how}{during}"
            if problem:
                raise UnreachableError(f"{self.uri}: {shell.plain(problem)}; {FRONT}")
            if self._adb and silent > LOOK_AGAIN_S and time.monotonic() - looked > LOOK_AGAIN_S:
                looked = time.monotonic()
                self._reverse(open_page=False)

    def _store(self, job: Job, plan: Mapping[str, Any], header: Header, arrays: dict[str, Array]) -> None:
        """A result as every worker writes it. Raises SetupError: not what the task gives."""
        (task,) = (task for task in plan["tasks"] if task["name"] == header.task)
        if header.ran.accelerator != task["accelerator"]:
            raise SetupError(f"{header.task}: ran on {header.ran.accelerator}, expected {task['accelerator']}")
        if arrays and task["do"] == jobs.LATENCY:
            arrays |= {
                "kinds": np.array(header.kinds, np.str_),
                "control": np.array(task["control"] or ""),
                "mode": np.array(task["mode"]),
                "memory": np.full(2, np.nan),
                "cores": np.array([], np.int64),
                "governor": np.array(jobs.UNAVAILABLE),
            }
        about = About(header.nonce, header.task, _machine(self._session.hello), header.ran)
        content = npz.encode({"about": np.array(shapes.encode(about).decode()), **arrays}, compress=False)
        path = job.result_path(header.task)
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, content)

    def _wait(self) -> Hello:
        """For a browser that opens the page; the address is printed."""
        _announce(self._server.url, self._adb is not None)
        if self._adb:
            self._open()
        end = time.monotonic() + OPEN_WITHIN_S
        while time.monotonic() < end:
            with self._session.changed:
                self._session.changed.wait_for(lambda: self._session.hello, 0.5)
                if hello := self._session.hello:
                    return hello
            self._progress("waiting for a browser", 0, 0)
        raise UnreachableError(
            f"{self.uri}: no browser opened the page within {OPEN_WITHIN_S:.0f} s; run again, and open the address "
            "that is printed"
        )

    def _reverse(self, *, open_page: bool = True) -> None:
        """The phone's loopback leads to the server: a secure context, without a network. Raises UnreachableError."""
        assert self._adb
        port = self._reversed or "0"
        done = shell.local(["adb", "-s", self._adb.serial, "reverse", f"tcp:{port}", f"tcp:{self._server.port}"], 20)
        if open_page and (done is None or done.code):
            reason = shell.plain(done.error) if done else "no answer"
            raise UnreachableError(f"{self.uri}: adb reverse fails ({reason}); unplug the phone, plug it in again")
        if done and done.out.strip().isdecimal():
            self._reversed = done.out.strip()

    def _open(self) -> None:
        assert self._adb
        url = self._server.url.replace(f":{self._server.port}/", f":{self._reversed}/")
        script = shell.quoted("am", "start", "-a", "android.intent.action.VIEW", "-d", url)
        done = shell.execute(self._adb, script)
        if done.code or "Error" in done.out + done.error:
            reason = shell.plain(done.error) or shell.plain(done.out)
            raise UnreachableError(f"{self.uri}: no browser opens there ({reason}); open {url} on the phone by hand")


def _announce(url: str, on_phone: bool) -> None:
    """The address, and a QR code of it where another machine may open it."""
    print(f"open {url} in the browser that is to be checked", file=sys.stderr, flush=True)
    if on_phone or f"//{LOOPBACK}:" in url:
        return
    try:
        import segno
    except ModuleNotFoundError:
        print("(a QR code is shown with the extra web: pip install '.[web]')", file=sys.stderr, flush=True)
        return
    segno.make(url, micro=False).terminal(out=sys.stderr, compact=True, border=2)


def _machine(hello: Hello | None) -> Machine:
    assert hello
    return Machine(
        runtime=litert_js.RUNTIME,
        system=shell.plain(hello.system) or jobs.UNAVAILABLE,
        machine=shell.plain(hello.architecture) or jobs.UNAVAILABLE,
        cores=hello.cores,
        host=shell.plain(hello.model or hello.name),
        processor=shell.plain(hello.name),
    )


def _for_page(job: Job, plan: Mapping[str, Any], tasks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the page is told of a job: these tasks, where the inputs lie in their file, what each model takes."""
    name, digest = plan["inputs"]
    inputs = np.load(job.folder / name, mmap_mode="r")
    if inputs.dtype != np.float32:
        raise SetupError(f"web://: a page takes float32 images, these are {inputs.dtype}")
    names = {digest: job.folder / name for task in tasks for name, digest in task["variants"].values()}
    return {
        "nonce": plan["nonce"],
        "state": len(worker.STATE),
        "inputs": {"sha256": digest, "offset": inputs.offset, "shape": inputs.shape},
        "models": {digest: asdict(model_tensors.read(path.read_bytes())) for digest, path in names.items()},
        "tasks": tasks,
    }
