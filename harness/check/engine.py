"""Where jobs run: on this machine's devices, or on those that a Dask scheduler's workers offer. One way to use both."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from harness.check import shard_task
from harness.check.message import RefusedError
from harness.check.shard_task import Answer, Stopped
from harness.core.outcome import Outcome
from harness.core.progress import Progress

AHEAD = 2  # jobs given to a device: one runs, the next one travels
ATTEMPTS = 3  # of one job, on whatever devices; and of one device, one after the other
POLL_S = 0.5

T = TypeVar("T")


class UnreachableError(Exception):
    """The engine cannot take a job just now."""


class Engine(Protocol):
    """Executors by device. `devices` says what is in sight now, with what is known of each."""

    patience_s: float  # a device may be out of sight that long: its host restarts, or the scheduler does

    def devices(self) -> Mapping[str, Mapping[str, Any]]: ...

    def submit(self, device: str, content: bytes) -> Future[bytes]:
        """Have a message performed; one device performs one at a time."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class LocalEngine:
    """This machine and the devices that it reaches, on the standard library's executor. known: facts of each."""

    patience_s = 0.0

    def __init__(
        self,
        devices: Iterable[str],
        progress: Progress = lambda task, done, total: None,
        known: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._progress = progress
        self._known = known or {}
        self._stop = threading.Event()
        self._executors: dict[str, Executor] = {uri: ThreadPoolExecutor(1, thread_name_prefix=uri) for uri in devices}

    def devices(self) -> Mapping[str, Mapping[str, Any]]:
        return {uri: self._known.get(uri, {}) for uri in self._executors}

    def submit(self, device: str, content: bytes) -> Future[bytes]:
        """Raises UnreachableError."""
        return self._executors[device].submit(shard_task.perform, content, self._follow)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Jobs that run are ended: nobody waits for them."""
        self._stop.set()
        for executor in self._executors.values():
            executor.shutdown(cancel_futures=True)

    def _follow(self, task: str, done: int, total: int) -> None:
        if self._stop.is_set():
            raise Stopped
        self._progress(task, done, total)


@dataclass
class Task(Generic[T]):
    """A job for any of some devices. ask: the message for the device that gets it."""

    about: T
    ask: Callable[[str], bytes]
    attempts: int = 0


@dataclass(frozen=True)
class Lost:
    """A job that no device could do, and why."""

    why: str


@dataclass
class _Lane(Generic[T]):
    """One device: what it was given, how often it failed in a row, since when it is out of sight."""

    device: str
    flying: dict[Future[bytes], Task[T]] = field(default_factory=dict)
    failures: int = 0
    missing_since: float | None = None
    closed: str = ""  # why

    @property
    def takes_more(self) -> bool:
        return not self.closed and self.missing_since is None and len(self.flying) < AHEAD


class Spread(Generic[T]):
    """Tasks over devices: iterating gives every task's answer, as they come, each once.

    A task whose device fails or goes out of sight is given to another; one that no device is left for is Lost. Tasks
    are taken one by one, so that few are in memory. Raises RefusedError where a host will not do such jobs.
    """

    def __init__(self, engine: Engine, devices: Iterable[str], tasks: Iterator[Task[T]]) -> None:
        self._engine = engine
        seen = engine.devices()
        self._lanes = [
            _Lane[T](device, closed="" if device in seen else f"{device}: not in sight") for device in devices
        ]
        self._tasks = tasks
        self._again: deque[Task[T]] = deque()

    def __iter__(self) -> Iterator[tuple[T, Answer | Lost]]:
        while True:
            self._look()
            self._give()
            flying = {future: lane for lane in self._lanes for future in lane.flying}
            if not flying and all(lane.closed for lane in self._lanes):
                why = "; ".join(lane.closed for lane in self._lanes)
                while task := self._next():
                    yield task.about, Lost(why)
                return
            if not flying:
                if (task := self._next()) is None:
                    return
                self._again.append(task)
                time.sleep(POLL_S)
                continue
            for future in wait(flying, timeout=POLL_S, return_when=FIRST_COMPLETED).done:
                lane = flying[future]
                if future in lane.flying and (ended := self._take(lane, future)):
                    yield ended

    def _next(self) -> Task[T] | None:
        return self._again.popleft() if self._again else next(self._tasks, None)

    def _look(self) -> None:
        """Which devices are in sight; those that have not been for too long are given up."""
        seen, now = self._engine.devices(), time.monotonic()
        for lane in self._lanes:
            if lane.device in seen:
                lane.missing_since = None
            elif lane.missing_since is None:
                lane.missing_since = now
            elif now - lane.missing_since > self._engine.patience_s:
                self._close(lane, f"{lane.device}: out of sight for {self._engine.patience_s:g} s")

    def _give(self) -> None:
        for ahead in range(AHEAD):
            for lane in self._lanes:
                if len(lane.flying) == ahead and lane.takes_more:
                    if (task := self._next()) is None:
                        return
                    try:
                        lane.flying[self._engine.submit(lane.device, task.ask(lane.device))] = task
                    except UnreachableError:  # the scheduler: looked for again
                        self._again.appendleft(task)
                        lane.missing_since = time.monotonic()

    def _take(self, lane: _Lane[T], future: Future[bytes]) -> tuple[T, Answer | Lost] | None:
        task = lane.flying.pop(future)
        try:
            answer = shard_task.understand(future.result())
        except RefusedError:
            raise
        except CancelledError:  # the scheduler was restarted: not the device's doing
            self._again.append(task)
            return None
        except Exception as error:  # whatever the way there or the device raised
            return self._failed(lane, task, f"{lane.device}: {error or type(error).__name__}")
        lane.failures = 0
        stopped = [why for why in answer.outputs.failures.values() if why.outcome is Outcome.INCONCLUSIVE]
        if stopped and task.attempts + 1 < ATTEMPTS:
            return self._failed(lane, task, f"{lane.device}: {stopped[0].reasons[0]}")
        return task.about, answer

    def _failed(self, lane: _Lane[T], task: Task[T], why: str) -> tuple[T, Lost] | None:
        lane.failures += 1
        task.attempts += 1
        if lane.failures >= ATTEMPTS:
            self._close(lane, why)
        if task.attempts >= ATTEMPTS:
            return task.about, Lost(f"given up after {ATTEMPTS} attempts, the last: {why}")
        self._again.append(task)
        return None

    def _close(self, lane: _Lane[T], why: str) -> None:
        lane.closed = lane.closed or why
        for future, task in lane.flying.items():
            future.cancel()
            self._again.append(task)
        lane.flying.clear()
