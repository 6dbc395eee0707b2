"""The devices that a Dask scheduler's workers offer: an engine as the local one, each device a Dask resource."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from typing import Any, Self

from harness.check.engine import EngineUnreachableError, Facts
from harness.check.shard_task import ShardAnswer, ShardJob, worker_sha256
from harness.cluster import serve
from harness.cluster.security import NO_KEYS, Keys, check_address
from harness.core.errors import SetupError

CONNECT_S = 10.0
RECONNECT_S = 2.0
PATIENCE_S = 60.0


class Cluster:
    """Use with `with`. Raises SetupError: no Dask, nothing answers there, workers of another version."""

    def __init__(self, address: str, keys: Keys = NO_KEYS, patience_s: float = PATIENCE_S) -> None:
        self.address = address
        self.patience_s = patience_s
        self.stopped = threading.Event()
        self._keys = keys
        self._executors: dict[str, Executor] = {}
        self._client: Any = None
        self._scheduler = ""  # which run of it the client was connected to
        self._given: set[Future[ShardAnswer]] = set()
        self._lock = threading.RLock()  # several checks ask at once

    def __enter__(self) -> Self:
        try:
            self._client = self._connect(CONNECT_S)
        except (OSError, ValueError, TypeError) as error:  # a timeout is an OSError
            raise SetupError(
                f"--scheduler {self.address}: no scheduler answers there ({_first_line(error)}); start one with "
                "harness lab scheduler"
            ) from error
        self._check_workers()
        return self

    def __exit__(self, *_: object) -> None:
        self._disconnect()

    def stop(self) -> None:
        self.stopped.set()
        self._cancel()

    def devices(self) -> Mapping[str, Facts]:
        """What the workers announced of each device. Empty while the scheduler cannot be reached."""
        return {
            device["uri"]: {**device, "worker": worker["name"]}
            for worker in self._workers()
            for device in worker.get(serve.ANNOUNCED, {}).get("devices", ())
        }

    def submit(self, device: str, job: ShardJob) -> Future[ShardAnswer]:
        with self._lock:
            if self._client is None:
                raise EngineUnreachableError(f"{self.address}: the scheduler is out of reach")
            if device not in self._executors:
                self._executors[device] = self._client.get_executor(resources={device: 1}, pure=False, retries=0)
            try:
                future = self._executors[device].submit(serve.run_offered, device, job)
            except Exception as error:  # whatever a connection breaks with
                raise EngineUnreachableError(f"{self.address}: {_first_line(error)}") from error
            self._given.add(future)
            future.add_done_callback(self._given.discard)
            return future

    def _check_workers(self) -> None:
        """Raise SetupError where a worker is not ours, or of another version."""
        for worker in self._workers():
            theirs = worker.get(serve.ANNOUNCED)
            if theirs is None:
                raise SetupError(
                    f"{self.address}: worker {worker['name']} is no lab worker; start it with harness lab worker"
                )
            if theirs.get("worker_sha256") != worker_sha256():
                raise SetupError(
                    f"{self.address}: worker {worker['name']} has worker_sha256 {str(theirs.get('worker_sha256'))[:12]}"
                    f", this host has {worker_sha256()[:12]}; install the same tflite-harness on both"
                )

    def _connect(self, timeout_s: float) -> Any:
        distributed = serve.import_distributed()
        # A Dask client that cannot connect lingers.
        socket.create_connection(check_address(self.address, self._keys), timeout_s).close()
        security = self._keys.security()
        return distributed.Client(self.address, timeout=timeout_s, security=security, set_as_default=False)

    def _disconnect(self) -> None:
        client, self._client, self._scheduler = self._client, None, ""
        self._executors.clear()
        if client is not None:
            with suppress(Exception):
                client.close(timeout=2)
        self._cancel()

    def _cancel(self) -> None:
        """Cancel submitted jobs on this side; results of those that still run there are dropped."""
        for future in list(self._given):  # one that was lost on the way Dask knows nothing of
            if future.cancel():
                with suppress(Exception):
                    future.set_running_or_notify_cancel()

    def _workers(self) -> list[dict[str, Any]]:
        """Connects again where the scheduler was restarted."""
        with self._lock:
            try:
                if self._client is None:
                    self._client = self._connect(RECONNECT_S)
                info = self._client.sync(self._client.scheduler.identity, n_workers=-1, callback_timeout=CONNECT_S)
            except Exception:  # whatever a connection breaks with
                self._disconnect()
                return []
            if self._scheduler not in ("", info["id"]):  # started again, and Dask's client connected by itself
                self._disconnect()
                return []
            self._scheduler = info["id"]
            return list(info["workers"].values())


def choose(devices: Mapping[str, Facts], named: Sequence[str], where: str) -> list[str]:
    """The devices that one check is distributed over: those named, or all, which must be alike. Raises SetupError."""
    for uri in named:
        if uri not in devices:
            raise SetupError(f"{where}: no worker has {uri}; there are {', '.join(sorted(devices)) or 'no devices'}")
    chosen = {uri: devices[uri] for uri in named or sorted(devices)}
    if not chosen:
        raise SetupError(f"{where}: no worker offers a device; start one with harness lab worker {where}")
    if len({like(facts) for facts in chosen.values()}) > 1:
        listed = "; ".join(f"{uri} ({like(facts)})" for uri, facts in chosen.items())
        raise SetupError(
            f"{where}: its devices are not alike, and a verdict is one device's: {listed}; name those to use with "
            "--device, or judge each by harness lab check"
        )
    return list(chosen)


def like(facts: Facts) -> str:
    """Properties that two devices must share for one verdict: runtime, architecture, processor."""
    return ", ".join(str(facts.get(key, "unavailable")) for key in ("runtime", "machine", "processor"))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
