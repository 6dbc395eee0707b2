"""Run a job to its end on a device; a task that crashes or hangs the worker is left out, and the others continue."""

from __future__ import annotations

import signal
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from harness.core.cell import BROWSERS, NATIVE
from harness.core.errors import AbsentError, SetupError
from harness.core.outcome import Outcome, Verdict
from harness.core.progress import Progress
from harness.run import job, worker
from harness.run.devices import run_model
from harness.run.devices.base import Device, Ended, UnreachableError
from harness.run.devices.local import Local
from harness.run.job import Job, Result

# Exit codes that the variant did not cause. None: silent too long.
FROM_OUTSIDE = (None, -signal.SIGKILL, -signal.SIGTERM, worker.DAMAGED, worker.TIE_BROKEN, worker.NOT_COUNTED)


@dataclass(frozen=True)
class Outputs:
    """Outcome of a job: results per task; for a task without one, a verdict that explains why.

    interrupted: whether Ctrl-C ended it.
    """

    results: Mapping[str, Result]
    failures: Mapping[str, Verdict]
    interrupted: bool


def run(written: Job, progress: Progress, device: Device | None = None, **options: Any) -> Outputs:
    """Run a job on a device, or here.

    A device that is lost leaves the tasks without a result INCONCLUSIVE.
    Raises SetupError where no worker can be started at all, or the device does not have an accelerator.
    """
    device = device or Local()
    check_accelerators(device.uri, written.accelerators)
    failures: dict[str, Verdict] = {}
    interrupted = began = False
    while missing := _missing_results(written):
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
            lost = Verdict(Outcome.INCONCLUSIVE, (f"{error}; finished results are kept",))
            failures |= dict.fromkeys(_missing_results(written), lost)
            break
        still_missing = _missing_results(written)
        if not still_missing:
            break
        if ended.code == 0 and len(still_missing) < len(missing):  # the next task wants a process of its own
            written = job.without_software_times(written)
        else:
            written = _without_failed(written, device, ended, failures)
    results = {}
    for task in written.tasks:
        try:
            if result := job.read_result(written, task):
                results[task] = result
                if result.ran.problem and not result.arrays:
                    reason = f"{result.ran.accelerator}: {job.advised(result.ran.problem)}"
                    failures[task] = Verdict(Outcome.FAIL, (reason,))
        except SetupError as error:  # the other tasks' results are sound
            failures[task] = Verdict(Outcome.INCONCLUSIVE, (str(error),))
    return Outputs(results, failures, interrupted)


def check_accelerators(uri: str, accelerators: Collection[str]) -> None:
    """Raise SetupError where a device cannot have one of them, whatever it is."""
    browser = uri.startswith("web:")
    if elsewhere := sorted({*accelerators} & {*(NATIVE if browser else BROWSERS)}):
        remedy = f"a browser has {' and '.join(BROWSERS)}" if browser else "only a browser has them: --device web://"
        raise SetupError(f"{uri}: --accelerator {','.join(elsewhere)}: {remedy}")
    if "run_model=" in uri:
        if other := sorted({*accelerators} - {*run_model.ACCELERATORS}):
            known = ", ".join(run_model.ACCELERATORS)
            raise SetupError(f"{uri}: --accelerator {','.join(other)}: run_model has {known}")
        return
    impossible = sorted({*accelerators} - {*worker.CPUS})
    if impossible and uri.startswith("adb:"):
        raise SetupError(
            f"{uri}: --accelerator {','.join(impossible)}: on a phone the worker runs through glibc, which cannot load "
            "Android's drivers; use cpu or cpu-compiled there, and check the accelerator's predictions on a computer "
            "or Raspberry Pi (local, ssh://)"
        )


def _without_failed(written: Job, device: Device, ended: Ended, failures: dict[str, Verdict]) -> Job:
    """The job without the task, or the variant, that ended the worker; its failure is noted. Raises SetupError."""
    if ended.code == worker.NO_ACCELERATOR:
        raise AbsentError(f"{device.uri}: {ended.tail}")
    what = "was silent too long and was stopped" if ended.code is None else f"ended with exit code {ended.code}"
    what += f" while {ended.doing}" * bool(ended.doing)
    reason = f"the worker {what}" + (f": {ended.tail}" if ended.tail else "")
    before = written.plan.read_bytes()
    remaining = job.without(written, ended.task, ended.variant) if ended.task is not None else written
    if remaining.plan.read_bytes() == before:  # it had not begun, or names a task that the job does not have
        raise SetupError(f"{device.uri}: {reason}")
    hung = ended.code is None and ended.doing  # the accelerator's compiler, whatever else the machine does
    outcome = Outcome.INCONCLUSIVE if ended.code in FROM_OUTSIDE and not hung else Outcome.FAIL
    name = f"{ended.task} of {ended.variant}" if ended.variant else str(ended.task)
    failures[name] = Verdict(outcome, (f"{ended.variant}: {reason}" if ended.variant else reason,))
    return remaining


def _missing_results(written: Job) -> list[str]:
    return [task for task in written.tasks if not written.result_path(task).exists()]
