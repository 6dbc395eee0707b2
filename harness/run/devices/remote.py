"""A device at the other end of a shell: the job goes there by hash, runs there, and comes back by hash.

Its folder there holds files/<SHA-256> (variants, inputs, worker), runtime/<hash>, jobs/<hash>/ and a lock.

A command whose answer was lost with the connection is run again, though it may have been carried out: every command
that changes something there can be repeated.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Self

import msgspec

from harness.core.errors import SetupError
from harness.core.files import sha256, write_atomic
from harness.core.progress import Progress
from harness.run import job as jobs
from harness.run.devices import probing, shell, worker_process
from harness.run.devices.base import (
    INPUTS,
    LIBRARY_PATHS,
    MAX_RESULT_FILE_BYTES,
    RESULT,
    SILENCE_LIMIT_S,
    Ended,
    Executed,
    Probe,
    Traffic,
    UnreachableError,
    placed,
)
from harness.run.devices.bundle import Runtime
from harness.run.devices.lock import Lock
from harness.run.devices.recovery import reconnect, recovered
from harness.run.devices.shell import Shell, quoted
from harness.run.job import MAX_RESULT_BYTES, Job

KEPT_DAYS = 7  # files, runtimes and unfinished jobs that have not been used for so long are removed
MAX_LOSSES = 5  # of the connection, in one run
Answers = Mapping[str, str]
Choose = Callable[[Answers, Collection[str]], Runtime]


class UnfinishedPlan(msgspec.Struct):
    """What is read of the plan of an interrupted job on the device."""

    nonce: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]


class Remote:
    """A device through a shell.

    folder: where it may write, below the shell's home where relative. choose: the runtime for its answers to the probe
    and the job's accelerators. keep: leave the job there to look at.
    """

    def __init__(self, machine: Shell, folder: str, choose: Choose, *, keep: bool = False) -> None:
        self._shell = machine
        self._folder = folder
        self._choose = choose
        self._keep = keep
        self._lock: Lock | None = None
        self.answers: Answers = {}
        self._runtime: tuple[Runtime, str] | None = None  # and where it is
        self._job = ""  # its folder
        self._complete = False
        self.traffic = Traffic()

    @property
    def uri(self) -> str:
        return self._shell.name

    def __enter__(self) -> Self:
        self._shell.open()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._lock:
                self._tidy()
        except UnreachableError:
            pass  # the next run takes up what is left there
        finally:
            if self._lock:
                self._lock.release()
            self._shell.close()

    def probe(self) -> Probe:
        self.answers = probing.parse(self._do(probing.SCRIPT).out)
        return probing.probe(self.uri, self.answers)

    def push(self, job: Job) -> Job:
        """Everything by hash: a file that is there already, with the right content, is not sent again."""
        first = self._lock is None
        if first:
            self._take()
        runtime, root = self._runtime or self._install(job)
        self._runtime = runtime, root
        if first:
            job = self._take_up(job, runtime)
        self._send({job.worker: "worker", job.plan: "plan", **job.files()})
        plan = sha256(job.plan.read_bytes())
        self._move(f"files/{plan}", f"{self._job}/job.json")
        self._worker = f"{self._folder}/files/{sha256(job.worker.read_bytes())}"
        return job

    def run(self, job: Job, progress: Progress, *, silence_limit_s: float = SILENCE_LIMIT_S) -> Ended:
        """Waits for a lost connection to come back; the worker then continues from the results that it has."""
        assert self._runtime is not None
        runtime, root = self._runtime
        environment = {
            **runtime.environment,
            "PYTHONPYCACHEPREFIX": f"{self._folder}/pycache",
            "PYTHONNOUSERSITE": "1",
            "TMPDIR": self._folder,
        }
        settings = " ".join(f"{name}={quoted(value)}" for name, value in environment.items())
        command = quoted(*runtime.argv, "-u", self._worker, f"{self._folder}/{self._job}", "--tied")
        mark = f"begin-{secrets.token_hex(8)}"
        # The worker reads our standard input, and ends when that does.
        script = (
            f"echo {mark}; cd {quoted(root or self._folder)} || exit; exec 2>&1 3<&0; {settings} {command} <&3 3<&- &"
            ' wait $!; echo "{\\"ended\\": $?}"'
        )
        for _ in range(MAX_LOSSES):
            process = worker_process.start(self._shell.command(script), stderr=subprocess.DEVNULL)
            heard = worker_process.follow(process, progress, silence_limit_s, mark)
            if heard.silent:
                if heard.pid:
                    self._do(f"kill -9 {heard.pid}")
                return heard.with_code(None)
            if heard.ended is not None:
                return heard.with_code(128 - heard.ended if heard.ended > 128 else heard.ended)
            self._recover()
        raise UnreachableError(f"{self.uri}: the connection was lost {MAX_LOSSES} times in one run; use a better one")

    def pull(self, job: Job) -> None:
        """Results that are there and not yet here.

        Raises UnreachableError: gone, or twice damaged on the way; SetupError: larger than any result is.
        """
        results = f"{self._job}/results"
        paths = [job.result_path(task) for task in job.tasks]
        script = f"""
            list() {{
                test -f "$1" || {{ echo; return; }}
                size=$(wc -c < "$1")
                test "$size" -gt {MAX_RESULT_BYTES} && echo $size || echo $size $(sha256sum < "$1")
            }}
        """
        script += "\n".join(f"list {quoted(f'{results}/{path.name}')}" for path in paths)
        for path, line in zip(paths, self._do(script).out.splitlines(), strict=False):
            size, digest, *_ = [*line.split(), "", ""]
            if size.isdecimal() and int(size) > MAX_RESULT_BYTES:
                raise SetupError(
                    f"{self.uri}: the result {path.stem} has {size} bytes, expected at most {MAX_RESULT_BYTES}; its "
                    "worker is not ours"
                )
            if not size.isdecimal() or (path.exists() and sha256(path.read_bytes()) == digest):
                continue
            write_atomic(path, self._fetch(f"{self._folder}/{results}/{path.name}", int(size), digest))
        self._complete = all(path.exists() for path in paths)

    def program(
        self,
        path: Path,
        arguments: Sequence[str],
        job: Job,
        timeout_s: float,
        inputs: Mapping[str, bytes] | None = None,
    ) -> Executed:
        self._send({path: "program"})
        folder = f"{self._folder}/{self._job}/inputs"
        self._place(folder, inputs or {})
        program = f"{self._folder}/files/{sha256(path.read_bytes())}"
        result = f"{self._folder}/{self._job}/program.result"
        places = {"{files}": f"{self._folder}/files", RESULT: result, INPUTS: folder}
        words = [placed(word, places) for word in arguments]
        libraries = " ".join(f"{name}={quoted(folder)}" for name in LIBRARY_PATHS) if inputs else ""
        script = f"rm -f {quoted(result)}; chmod 755 {quoted(program)} && {libraries} {quoted(program, *words)}"
        done = shell.execute(self._shell, script, timeout_s)
        wanted = any(RESULT in word for word in arguments)
        return replace(done, result=shell.fetch(self._shell, result, MAX_RESULT_FILE_BYTES)) if wanted else done

    def _place(self, folder: str, contents: Mapping[str, bytes]) -> None:
        """Files of these names in a folder there, and no others."""
        if not contents:
            return
        with tempfile.TemporaryDirectory(prefix="harness-inputs-") as here:
            paths = {name: Path(here) / sha256(content) for name, content in contents.items()}
            for name, path in paths.items():
                path.write_bytes(contents[name])
            self._send(dict.fromkeys(paths.values(), "inputs"))
        copies = [f"cp {quoted(f'files/{path.name}', f'{folder}/{name}')}" for name, path in paths.items()]
        self._must(f"rm -rf {quoted(folder)}; mkdir -p {quoted(folder)} && " + " && ".join(copies))

    def clean(self) -> None:
        """Remove everything of the harness from the device."""
        self._take()
        self._must("rm -rf files runtime jobs pycache")

    def _do(self, script: str, timeout_s: float = shell.TIMEOUT_S) -> Executed:
        """A script in our folder, once it is known; waits for a lost device to come back, and tries again."""
        return recovered(lambda: shell.execute(self._shell, self._within(script), timeout_s), self._recover)

    def _within(self, script: str) -> str:
        return f"cd {quoted(self._folder)} || exit\n{script}" if self._lock else script

    def _must(self, script: str, timeout_s: float = shell.TIMEOUT_S) -> Executed:
        done = self._do(script, timeout_s)
        if done.code:
            raise self._failed(done)
        return done

    def _move(self, source: str, target: str) -> None:
        """A file, which is gone where the command was carried out before."""
        self._must(f"mv {quoted(source, target)} || test ! -e {quoted(source)}")

    def _failed(self, done: Executed) -> SetupError:
        reason = shell.plain(done.error) or shell.plain(done.out) or f"exit code {done.code}"
        if shell.DISK_FULL in done.error + done.out:
            numbers = re.fullmatch(r"(\d{1,18}) (\d{1,18})\n", self._do("stat -f -c '%a %S' .").out)
            free = f"{int(numbers[1]) * int(numbers[2]) / 1e6:.1f} MB" if numbers else "nothing"
            return SetupError(
                f"{self.uri}: its disk is full ({free} free in {self._folder}); make room there, or remove what the "
                f"harness keeps: harness device clean {self.uri}"
            )
        return SetupError(f"{self.uri}: {reason} (in {self._folder})")

    def _take(self) -> None:
        lock = Lock(self._shell, self._folder)
        recovered(lock.take, self._recover)
        self._lock = lock
        self._folder = self._must("pwd").out.removesuffix("\n")
        self._must("mkdir -p files runtime jobs && rm -rf files/*.part runtime/*.part")

    def _recover(self) -> None:
        """Connect anew, within some time. Raises UnreachableError."""

        def connect() -> None:
            if self._lock:
                self._lock.release()
            self._shell.reopen()
            if self._lock:
                self._lock.take()

        reconnect(connect)

    def _take_up(self, job: Job, runtime: Runtime) -> Job:
        """Make the job's folder, or resume an interrupted job: its predictions are kept, its timings discarded."""
        plan = json.loads(job.plan.read_text())
        content = plan | {"nonce": "", "runtime": runtime.bundle.tree_sha256 if runtime.bundle else runtime.argv}
        self._job = f"jobs/{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]}"
        self._must(f"mkdir -p {self._job}/results && ln -sfn ../../files {self._job}/files")
        try:
            unfinished = msgspec.json.decode(self._do(f"cat {self._job}/job.json 2>/dev/null").out, type=UnfinishedPlan)
        except (msgspec.DecodeError, RecursionError):  # none, or a damaged one
            self._must(f"rm -rf {self._job}/results")
            return job
        timed = [job.result_path(task["name"]).name for task in plan["tasks"] if task["do"] != "answers"]
        self._must("rm -f " + quoted("x", *(f"{self._job}/results/{name}" for name in timed)))
        return jobs.with_nonce(job, unfinished.nonce)

    def _install(self, job: Job) -> tuple[Runtime, str]:
        """The runtime, verified file by file, and where it is."""
        accelerators = {task["accelerator"] for task in json.loads(job.plan.read_text())["tasks"]}
        runtime = self._choose(self.answers or probing.parse(self._do(probing.SCRIPT).out), accelerators)
        bundle = runtime.bundle
        if bundle is None:
            return runtime, ""
        root = f"runtime/{bundle.tree_sha256[:16]}"
        # The loader is started by name; an x-bit that was lost is set here.
        tree = (
            f"cd {root} 2>/dev/null && touch . && find . -type f | LC_ALL=C sort | xargs sha256sum | sha256sum"
            " && chmod -R u+x lib 2>/dev/null; true"
        )
        slow = shell.transfer_timeout(bundle.size_bytes)
        if bundle.tree_sha256 not in self._do(tree, slow).out:
            self._send({bundle.archive: "runtime"})
            part = f"{root}.$$.part"
            self._must(
                f"test -e files/{bundle.sha256} || exit 0; rm -rf {root}; mkdir -p {part} && "
                f"tar -xzf files/{bundle.sha256} -C {part} && mv {part} {root} && rm -f files/{bundle.sha256}",
                slow,
            )
            if bundle.tree_sha256 not in self._do(tree, slow).out:
                raise SetupError(
                    f"{self.uri}: the runtime arrives incomplete in {self._folder}; is its storage damaged?"
                )
        return runtime, f"{self._folder}/{root}"

    def _send(self, wanted: Mapping[Path, str]) -> None:
        """Files to files/<SHA-256>, those that are not there yet."""
        digests = {path: path.name if len(path.name) == 64 else sha256(path.read_bytes()) for path in wanted}
        names = " ".join(digests.values())
        listed = self._do(f"cd files && touch -c {names}; sha256sum {names} 2>/dev/null").out
        there = {line.split()[0] for line in listed.splitlines() if line.split()[:1] == line.split()[-1:]}
        for path, digest in digests.items():
            if digest not in there:
                self._send_one(path, digest, wanted[path])

    def _send_one(self, path: Path, digest: str, what: str) -> None:
        part = f"{self._folder}/files/{digest}.part"
        for _ in range(2):
            sent = recovered(lambda: shell.send(self._shell, path, part), self._recover)
            self.traffic.pushed(what, path.stat().st_size)
            arrived = self._do(f"sha256sum < {quoted(part)}").out.split()[:1]
            if arrived == [digest]:
                self._move(part, f"files/{digest}")
                return
            if sent.code:
                raise self._failed(sent)
        raise SetupError(f"{self.uri}: {path.name} arrives damaged, twice; is the cable or its storage damaged?")

    def _fetch(self, remote: str, size: int, digest: str) -> bytes:
        for _ in range(2):
            content = recovered(lambda: shell.fetch(self._shell, remote, size), self._recover)
            self.traffic.pulled_bytes += len(content)
            if sha256(content) == digest:
                return content
        raise UnreachableError(f"{self.uri}: the result {Path(remote).stem} arrives damaged, twice; run again")

    def _tidy(self) -> None:
        """Keep what makes the next run quick; of the job only an unfinished one, or one to look at."""
        commands: Iterable[str] = [
            f"find files runtime jobs -mindepth 1 -maxdepth 1 -mtime +{KEPT_DAYS} -exec rm -rf {{}} +",
        ]
        if self._complete and not self._keep:
            commands = [*commands, f"rm -rf {self._job}"]
        shell.execute(self._shell, self._within("\n".join(commands)))
