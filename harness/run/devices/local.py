"""This machine: the worker as a process of the same Python."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self
from urllib.parse import quote

from harness.core import cores
from harness.core.errors import SetupError
from harness.core.files import read_capped
from harness.core.progress import Progress
from harness.run.devices import shell, worker_process
from harness.run.devices.base import (
    INPUTS,
    MAX_RESULT_FILE_BYTES,
    RESULT,
    SILENCE_LIMIT_S,
    Ended,
    Executed,
    Probe,
    Traffic,
    placed,
)
from harness.run.job import FILES, Job

URI = "local"


def run(
    job: Job, progress: Progress, *, python: str = sys.executable, silence_limit_s: float = SILENCE_LIMIT_S
) -> Ended:
    """Run a job's worker to its end. On Ctrl-C the worker is stopped first; finished results stay."""
    process = worker_process.start([python, "-u", str(job.worker), str(job.folder), "--tied"])
    heard = worker_process.follow(process, progress, silence_limit_s)
    return heard.with_code(None if heard.silent else process.returncode)


class Local:
    """The job is where it runs: nothing is brought there or back."""

    def __init__(self, python: str = sys.executable) -> None:
        """python: a Python with NumPy and a runtime, which runs the worker."""
        self._python = python
        self.uri = URI if python == sys.executable else f"{URI}?python={quote(python)}"
        self.traffic = Traffic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def probe(self) -> Probe:
        return Probe(
            uri=self.uri,
            name=platform.node(),
            machine=platform.machine(),
            system=f"{platform.system()} {platform.release()}",
            cores=cores.usable(),
            memory_bytes=_memory(),
            emulated=False,
        )

    def push(self, job: Job) -> Job:
        return job

    def run(self, job: Job, progress: Progress, *, silence_limit_s: float = SILENCE_LIMIT_S) -> Ended:
        try:
            return run(job, progress, python=self._python, silence_limit_s=silence_limit_s)
        except OSError as error:
            raise SetupError(
                f"{self._python}: cannot be started ({error.strerror}); name a Python's program"
            ) from error

    def pull(self, job: Job) -> None:
        pass

    def program(
        self,
        path: Path,
        arguments: Sequence[str],
        job: Job,
        timeout_s: float,
        inputs: Mapping[str, bytes] | None = None,
    ) -> Executed:
        result, folder = job.folder / "program.result", job.folder / "program.inputs"
        result.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, content in (inputs or {}).items():
            (folder / name).write_bytes(content)
        places = {"{files}": job.folder / FILES, RESULT: result, INPUTS: folder}
        words = [placed(word, {mark: str(place) for mark, place in places.items()}) for word in arguments]
        try:
            done = shell.local([str(path.resolve()), *words], timeout_s) or Executed(
                1, "", f"not done within {timeout_s:.0f} s"
            )
        except OSError as error:  # not executable, or for another processor
            raise SetupError(
                f"{path}: cannot be run here ({error.strerror}); name a binary for this machine"
            ) from error
        content = read_capped(result, MAX_RESULT_FILE_BYTES, "a result file") if result.is_file() else b""
        return replace(done, result=content)


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None
