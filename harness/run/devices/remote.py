"""A device at the other end of a shell: the job goes there by hash, runs there, and comes back by hash.

Its folder there holds files/<SHA-256> (variants, inputs, worker), runtime/<hash>, jobs/<hash>/ and a lock.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

from harness.core.errors import SetupError
from harness.core.files import sha256
from harness.core.progress import Progress
from harness.run import job as jobs
from harness.run.devices import probing, shell, worker_process
from harness.run.devices.base import SILENCE_LIMIT_S, Ended, Executed, Probe, Traffic, UnreachableError
from harness.run.devices.bundle import Runtime
from harness.run.devices.lock import Lock
from harness.run.devices.recovery import reconnect, recovered
from harness.run.devices.shell import Shell, quoted
from harness.run.job import Job

KEPT_DAYS = 7  # files, runtimes and unfinished jobs that nothing has used since are removed
LOSSES_BORNE = 5  # connections lost in one run
Answers = Mapping[str, str]


class Remote:
    """A device through a shell.

    folder: where it may write, below the shell's home where relative. choose: the runtime for what it answered to the
    probe. keep: leave the job there to look at.
    """

    def __init__(
        self, machine: Shell, folder: str, choose: Callable[[Answers], Runtime], *, keep: bool = False
    ) -> None:
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
            pass  # what is left there is taken up by the next run
        finally:
            if self._lock:
                self._lock.release()
            self._shell.close()

    def probe(self) -> Probe:
        self.answers = probing.parse(self._do(probing.SCRIPT).out)
        return probing.probe(self.uri, self.answers)

    def push(self, job: Job) -> Job:
        """Everything by hash: what is there already, and is what it should be, is not sent again."""
        first = self._lock is None
        if first:
            self._take()
        runtime, root = self._runtime or self._install()
        self._runtime = runtime, root
        if first:
            job = self._take_up(job, runtime)
        self._send({job.worker: "worker", job.plan: "plan", **job.files()})
        plan = sha256(job.plan.read_bytes())
        self._must(f"cp files/{plan} {self._job}/job.json && rm files/{plan}")
        self._worker = f"{self._folder}/files/{sha256(job.worker.read_bytes())}"
        return job

    def run(self, job: Job, progress: Progress, *, silence_limit_s: float = SILENCE_LIMIT_S) -> Ended:
        """A lost connection is waited for, and the worker goes on from the results that it has."""
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
        # The worker reads our standard input, and ends when that does.
        script = (
            f"cd {quoted(root or self._folder)} || exit; exec 2>&1 3<&0; {settings} {command} <&3 3<&- &"
            ' wait $!; echo "{\\"ended\\": $?}"'
        )
        for _ in range(LOSSES_BORNE):
            process = worker_process.start(self._shell.command(script))
            said = worker_process.follow(process, progress, silence_limit_s)
            if said.silent:
                if said.pid:
                    self._do(f"kill -9 {said.pid}")
                return Ended(None, said.task, said.tail, said.variant, said.doing)
            if said.ended is not None:
                code = 128 - said.ended if said.ended > 128 else said.ended
                return Ended(code, said.task, said.tail, said.variant, said.doing)
            self._recover()
        raise UnreachableError(f"{self.uri}: the connection was lost {LOSSES_BORNE} times in one run; use a better one")

    def pull(self, job: Job) -> None:
        """Results that are there and not yet here. Raises UnreachableError: gone, or twice damaged on the way."""
        results = f"{self._job}/results"
        names = [job.result_path(task).name for task in job.tasks]
        script = "\n".join(f"sha256sum < {quoted(f'{results}/{name}')} 2>/dev/null || echo" for name in names)
        there = [line.split()[0] if line else "" for line in self._do(script).out.splitlines()]
        for name, digest in zip(names, there, strict=True):
            path = job.folder / "results" / name
            path.parent.mkdir(exist_ok=True)
            if digest and not (path.exists() and sha256(path.read_bytes()) == digest):
                self._fetch(f"{self._folder}/{results}/{name}", path, digest)
        self._complete = all(job.result_path(task).exists() for task in job.tasks)

    def program(self, path: Path, arguments: Sequence[str], job: Job, timeout_s: float) -> Executed:
        self._send({path: "program"})
        program = f"{self._folder}/files/{sha256(path.read_bytes())}"
        words = [program, *(word.replace("{files}", f"{self._folder}/files") for word in arguments)]
        return shell.execute(self._shell, f"chmod 755 {quoted(program)} && {quoted(*words)}", timeout_s)

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

    def _failed(self, done: Executed) -> SetupError:
        said = (done.error.strip() or done.out.strip() or f"exit code {done.code}").splitlines()[-1]
        if "No space left" in done.error + done.out:
            free = self._do("df -h . | tail -n 1").out.split()[3:4] or ["?"]
            return SetupError(
                f"{self.uri}: its disk is full ({free[0]} free in {self._folder}); make room there, or remove what the "
                f"harness keeps: harness device clean {self.uri}"
            )
        return SetupError(f"{self.uri}: {said} (in {self._folder})")

    def _take(self) -> None:
        lock = Lock(self._shell, self._folder)
        lock.take()
        self._lock = lock
        self._folder = self._must("pwd").out.strip()
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
        """The job's folder there. One that an interrupted run left is gone on with: its answers count, times do not."""
        plan = json.loads(job.plan.read_text())
        content = plan | {"nonce": "", "runtime": runtime.bundle.tree_sha256 if runtime.bundle else runtime.argv}
        self._job = f"jobs/{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]}"
        self._must(f"mkdir -p {self._job}/results && ln -sfn ../../files {self._job}/files")
        try:
            nonce = json.loads(self._do(f"cat {self._job}/job.json 2>/dev/null").out)["nonce"]
        except (ValueError, KeyError, TypeError):
            self._must(f"rm -rf {self._job}/results")
            return job
        timed = [job.result_path(task["name"]).name for task in plan["tasks"] if task["do"] != "answers"]
        self._must("rm -f " + quoted("x", *(f"{self._job}/results/{name}" for name in timed)))
        return jobs.with_nonce(job, nonce)

    def _install(self) -> tuple[Runtime, str]:
        """The runtime, verified file by file, and where it is."""
        runtime = self._choose(self.answers or probing.parse(self._do(probing.SCRIPT).out))
        bundle = runtime.bundle
        if bundle is None:
            return runtime, ""
        root = f"runtime/{bundle.tree_sha256[:16]}"
        # The loader is started by name; a lost x-bit is put right here.
        tree = (
            f"cd {root} 2>/dev/null && touch . && find . -type f | LC_ALL=C sort | xargs sha256sum | sha256sum"
            " && chmod -R u+x lib 2>/dev/null; true"
        )
        slow = shell.transfer_timeout(bundle.size_bytes)
        if bundle.tree_sha256 not in self._do(tree, slow).out:
            self._send({bundle.archive: "runtime"})
            part = f"{root}.part"
            self._must(
                f"rm -rf {root} {part} && mkdir -p {part} && tar -xzf files/{bundle.sha256} -C {part} && "
                f"mv {part} {root} && rm files/{bundle.sha256}",
                slow,
            )
            if bundle.tree_sha256 not in self._do(tree, slow).out:
                raise SetupError(
                    f"{self.uri}: the runtime does not arrive whole in {self._folder}; is its storage sound?"
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
        size = path.stat().st_size
        part = f"{self._folder}/files/{digest}.part"
        for _ in range(2):
            sent = recovered(lambda: self._put(path, part, size), self._recover)
            self.traffic.pushed(what, size)
            arrived = self._do(f"sha256sum < {quoted(part)}").out.split()[:1]
            if arrived == [digest]:
                self._must(f"mv {quoted(part)} files/{digest}")
                return
            if sent.code:
                raise self._failed(sent)
        raise SetupError(f"{self.uri}: {path.name} arrives damaged, twice; is the cable or its storage sound?")

    def _put(self, path: Path, remote: str, size: int) -> Executed:
        done = self._shell.put(path, remote, shell.transfer_timeout(size))
        if done.code and "No space left" not in done.error + done.out:
            shell.execute(self._shell, "true")  # raises where the device is gone
        return done

    def _fetch(self, remote: str, path: Path, digest: str) -> None:
        with tempfile.TemporaryDirectory(prefix="harness-pull-") as folder:
            partial = Path(folder) / "result"
            for _ in range(2):

                def get() -> Executed:
                    done = self._shell.get(remote, partial, shell.TIMEOUT_S)
                    shell.execute(self._shell, "true")
                    return done

                recovered(get, self._recover)
                content = partial.read_bytes() if partial.exists() else b""
                self.traffic.pulled_bytes += len(content)
                if sha256(content) == digest:
                    path.write_bytes(content)
                    return
        raise UnreachableError(f"{self.uri}: the result {path.stem} arrives damaged, twice; run again")

    def _tidy(self) -> None:
        """Leave what makes the next run quick; the job itself only where it is unfinished, or is to be looked at."""
        commands: Iterable[str] = [
            f"find files runtime jobs -mindepth 1 -maxdepth 1 -mtime +{KEPT_DAYS} -exec rm -rf {{}} +",
        ]
        if self._complete and not self._keep:
            commands = [*commands, f"rm -rf {self._job}"]
        shell.execute(self._shell, self._within("\n".join(commands)))
