"""Run a job to its end on a device; a task that crashes or hangs the worker is left out, and the others go on."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.core.errors import SetupError
from harness.core.outcome import Outcome, Verdict
from harness.core.progress import Progress
from harness.run import job, worker
from harness.run.devices.base import Device, UnreachableError
from harness.run.devices.local import Local
from harness.run.job import Job, Result

# Exit codes that are not the variant's own doing; none: silent too long.
FROM_OUTSIDE = (None, -signal.SIGKILL, -signal.SIGTERM, worker.DAMAGED, worker.TIE_BROKEN)


@dataclass(frozen=True)
class Outputs:
    """What became of a job: results by task, for tasks without one the verdict why, whether Ctrl-C ended it."""

    results: Mapping[str, Result]
    failures: Mapping[str, Verdict]
    interrupted: bool


def run(written: Job, progress: Progress, device: Device | None = None, **options: Any) -> Outputs:
    """Run a job on a device, or here; a task that crashes or hangs the worker is left out, and the others go on.

    A device that is lost on the way leaves the tasks it has not answered INCONCLUSIVE.
    Raises SetupError where no worker can be started at all.
    """
    device = device or Local()
    failures: dict[str, Verdict] = {}
    interrupted = began = False
    while True:
        missing = _missing_results(written)
        try:
            written = device.push(written)
            began = True
            ended = device.run(written, progress, **options)
            device.pull(written)
        except KeyboardInterrupt:
            interrupted = True
            break
        except UnreachableError as error:
            if not began:
                raise
            for task in _missing_results(written):
                failures[task] = Verdict(Outcome.INCONCLUSIVE, (f"{error}; what it has finished is kept there",))
            break
        still = _missing_results(written)
        if not still:
            break
        if ended.code == 0 and len(still) < len(missing):
            written = job.without_software_times(written)
            continue  # a task that wants a process of its own
        if ended.code == worker.NO_ACCELERATOR:
            raise SetupError(f"{device.uri}: {ended.tail}")
        what = "was silent too long and was stopped" if ended.code is None else f"ended with exit code {ended.code}"
        what += f" while {ended.doing}" * bool(ended.doing)
        reason = f"the worker {what}" + (f": {ended.tail}" if ended.tail else "")
        if ended.task is None:
            raise SetupError(f"{device.uri}: {reason}")
        hung = ended.code is None and ended.doing  # the accelerator's compiler, whatever else the machine does
        outcome = Outcome.INCONCLUSIVE if ended.code in FROM_OUTSIDE and not hung else Outcome.FAIL
        if ended.variant:
            reason = f"{ended.variant}: {reason}"
        failures[f"{ended.task} of {ended.variant}" if ended.variant else ended.task] = Verdict(outcome, (reason,))
        written = job.without(written, ended.task, ended.variant)
    results = {}
    for task in written.tasks:
        try:
            if result := job.read_result(written, task):
                results[task] = result
                if result.ran.problem and not result.arrays:
                    reason = f"not compiled for {result.ran.accelerator}: {result.ran.problem}"
                    failures[task] = Verdict(Outcome.FAIL, (reason,))
        except SetupError as error:  # the other tasks' results are sound
            failures[task] = Verdict(Outcome.INCONCLUSIVE, (str(error),))
    return Outputs(results, failures, interrupted)


def _missing_results(written: Job) -> list[str]:
    return [task for task in written.tasks if not written.result_path(task).exists()]
