"""This machine: the worker as a process of the same Python."""

from __future__ import annotations

import os
import platform
import sys
from typing import Self

from harness.devices import worker_process
from harness.devices.base import SILENCE_LIMIT_S, Ended, Probe, Progress, Traffic
from harness.job import Job

URI = "local"


def run(
    job: Job, progress: Progress, *, python: str = sys.executable, silence_limit_s: float = SILENCE_LIMIT_S
) -> Ended:
    """Run a job's worker to its end. On Ctrl-C the worker is stopped first; finished results stay."""
    process = worker_process.start([python, "-u", str(job.worker), str(job.folder), "--tied"])
    said = worker_process.follow(process, progress, silence_limit_s)
    return Ended(None if said.silent else process.returncode, said.task, said.tail)


class Local:
    """The job is where it runs: nothing is brought there or back."""

    uri = URI

    def __init__(self) -> None:
        self.traffic = Traffic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def probe(self) -> Probe:
        return Probe(
            uri=URI,
            name=platform.node(),
            machine=platform.machine(),
            system=f"{platform.system()} {platform.release()}",
            cores=os.cpu_count(),
            memory_bytes=_memory(),
            emulated=False,
        )

    def push(self, job: Job) -> Job:
        return job

    def run(self, job: Job, progress: Progress, *, silence_limit_s: float = SILENCE_LIMIT_S) -> Ended:
        return run(job, progress, silence_limit_s=silence_limit_s)

    def pull(self, job: Job) -> None:
        pass


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None
