"""Where jobs run: on this machine's devices, or on those that a Dask scheduler's workers offer. One way to use both."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from harness.check.shard_task import RefusedError, ShardAnswer, ShardJob, run_shard
from harness.core.errors import AbsentError, SetupError
from harness.core.outcome import Outcome
from harness.core.progress import NO_BARS, Bars, Progress
from harness.run.devices import local, uri
from harness.run.devices.benchmark_model import BenchmarkModel

MAX_QUEUED = 2  # jobs that a device has: one runs, the next one travels
MAX_ATTEMPTS = 3  # of one job, on whatever devices; and of one device, one after the other
POLL_S = 0.5

Facts = Mapping[str, Any]  # what is known of a device


class EngineUnreachableError(Exception):
    """The engine cannot take a job just now."""


class Engine(Protocol):
    """Devices that run jobs, one at a time each. Used with `with`.

    patience_s: how long a device may be out of sight before it is given up. stopped: set when Ctrl-C ended the run.
    """

    patience_s: float
    stopped: threading.Event

    def devices(self) -> Mapping[str, Facts]:
        """Those in sight now."""

    def submit(self, device: str, job: ShardJob) -> Future[ShardAnswer]:
        """Raises EngineUnreachableError."""

    def stop(self) -> None:
        """End the jobs that run: what they have finished by then is their answer, or they are cancelled."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def until_stopped(engine: Engine, progress: Progress) -> Progress:
    """Progress that ends a run where the engine is stopped, as Ctrl-C does in the main thread."""

    def unless_stopped(task: str, done: int, total: int) -> None:
        if engine.stopped.is_set():
            raise KeyboardInterrupt
        progress(task, done, total)

    return unless_stopped


class LocalEngine:
    """This machine and the devices that it reaches. Raises SetupError: no valid address, one named twice.

    known: facts of each. keep: leave jobs on the devices, to look at. benchmark: run beside the latency.
    """

    patience_s = 0.0

    def __init__(
        self,
        devices: Sequence[str],
        bars: Bars = NO_BARS,
        known: Mapping[str, Facts] | None = None,
        *,
        keep: bool = False,
        benchmark: BenchmarkModel | None = None,
    ) -> None:
        self.stopped = threading.Event()
        self._bars, self._known, self._keep, self._benchmark = bars, known or {}, keep, benchmark
        self._executors: dict[str, Executor] = {}
        for device in devices:
            if device in self._executors:
                raise SetupError(f"--device {device}: named twice; name each device once")
            uri.device(device)
            self._executors[device] = ThreadPoolExecutor(1)

    def devices(self) -> Mapping[str, Facts]:
        return {device: self._known.get(device, {}) for device in self._executors}

    def submit(self, device: str, job: ShardJob) -> Future[ShardAnswer]:
        show = self._bars.for_device(device)
        shard = f", shard {job.number + 1} of {job.of}" if job.of > 1 else ""
        progress = until_stopped(self, lambda task, done, total: show(f"{task}{shard}", done, total))
        opened = uri.device(device, keep=self._keep, progress=progress)
        return self._executors[device].submit(run_shard, job, opened, progress, self._benchmark)

    def stop(self) -> None:
        self.stopped.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for executor in self._executors.values():
            executor.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class Lost:
    """A job that no device could do, and why. absent: no device or accelerator was there."""

    why: str
    absent: bool = False


@dataclass
class _Queue:
    """The jobs given to one device, how often it failed in a row, since when it is out of sight."""

    device: str
    running: dict[Future[ShardAnswer], ShardJob] = field(default_factory=dict)
    failures: int = 0
    answered: bool = False
    missing_since: float | None = None
    closed: str = ""  # why it is given up
    absent: bool = False  # it, or its accelerator, never was there

    @property
    def takes_more(self) -> bool:
        return not self.closed and self.missing_since is None and len(self.running) < MAX_QUEUED


class Dispatcher:
    """Distributes jobs over devices: iterating gives every job's answer, in the order they come, each once.

    A job whose device fails or goes out of sight is given to another; one that no device is left for is Lost. Jobs are
    taken from the iterator one by one, so that few are in memory. Raises RefusedError.
    """

    def __init__(
        self, engine: Engine, devices: Iterable[str], jobs: Iterator[ShardJob], max_attempts: int = MAX_ATTEMPTS
    ) -> None:
        self._engine = engine
        self._max_attempts = max_attempts
        self._queues = [_Queue(device) for device in devices]
        for queue in self._queues:
            if queue.device not in engine.devices():
                queue.closed = f"{queue.device}: not in sight"
        self._jobs = jobs
        self._returned: deque[ShardJob] = deque()
        self._attempts: Counter[int] = Counter()  # by number

    def __iter__(self) -> Iterator[tuple[ShardJob, ShardAnswer | Lost]]:
        while True:
            self._look()
            if not self._engine.stopped.is_set():
                self._give()
            running = {future: queue for queue in self._queues for future in queue.running}
            if not running:
                if self._engine.stopped.is_set():
                    return
                if all(queue.closed for queue in self._queues):
                    lost = Lost(
                        "; ".join(queue.closed for queue in self._queues), all(queue.absent for queue in self._queues)
                    )
                    while job := self._next():
                        yield job, lost
                    return
                if (job := self._next()) is None:
                    return
                self._returned.append(job)
                time.sleep(POLL_S)
                continue
            for future in wait(running, timeout=POLL_S, return_when=FIRST_COMPLETED).done:
                queue = running[future]
                if future in queue.running and (answered := self._take(queue, future)):
                    yield answered

    def _next(self) -> ShardJob | None:
        return self._returned.popleft() if self._returned else next(self._jobs, None)

    def _look(self) -> None:
        """See which devices are in sight; give up those that have not been for too long."""
        seen, now = self._engine.devices(), time.monotonic()
        for queue in self._queues:
            if queue.device in seen:
                queue.missing_since = None
            elif queue.missing_since is None:
                queue.missing_since = now
            elif now - queue.missing_since > self._engine.patience_s:
                self._close(queue, f"{queue.device}: out of sight for {self._engine.patience_s:g} s")

    def _give(self) -> None:
        for queued in range(MAX_QUEUED):
            for queue in self._queues:
                if any(job.plan and queue.device == local.URI for job in queue.running.values()):
                    return  # this machine's latency is measured while nothing else is prepared on it
                if len(queue.running) == queued and queue.takes_more:
                    if (job := self._next()) is None:
                        return
                    try:
                        queue.running[self._engine.submit(queue.device, job)] = job
                    except EngineUnreachableError:
                        self._returned.appendleft(job)
                        queue.missing_since = time.monotonic()

    def _take(self, queue: _Queue, future: Future[ShardAnswer]) -> tuple[ShardJob, ShardAnswer | Lost] | None:
        job = queue.running.pop(future)
        try:
            answer = future.result()
        except RefusedError:
            raise
        except CancelledError:  # the scheduler was restarted: not the device's fault
            self._returned.append(job)
            return None
        except SetupError as error:  # says what to do: trying a device that never answered again is of no use
            queue.absent = not queue.answered and isinstance(error, AbsentError)
            return self._failed(queue, job, str(error), final=not queue.answered)
        except Exception as error:  # whatever the way there or the device raised
            return self._failed(queue, job, f"{queue.device}: {type(error).__name__}: {error}")
        queue.failures, queue.answered = 0, True
        stopped = [why for why in answer.outputs.failures.values() if why.outcome is Outcome.INCONCLUSIVE]
        last = self._attempts[job.number] + 1 >= self._max_attempts or answer.outputs.interrupted
        if stopped and not last:
            return self._failed(queue, job, f"{queue.device}: {stopped[0].reasons[0]}")
        return job, answer

    def _failed(self, queue: _Queue, job: ShardJob, why: str, final: bool = False) -> tuple[ShardJob, Lost] | None:
        queue.failures += 1
        self._attempts[job.number] += 1
        if final or queue.failures >= MAX_ATTEMPTS:
            self._close(queue, why)
        if self._attempts[job.number] >= self._max_attempts:
            attempts = f"given up after {self._max_attempts} attempts, the last: " * (self._max_attempts > 1)
            return job, Lost(attempts + why, queue.absent)
        self._returned.append(job)
        return None

    def _close(self, queue: _Queue, why: str) -> None:
        queue.closed = queue.closed or why
        for future, job in queue.running.items():
            future.cancel()
            self._returned.append(job)
        queue.running.clear()
