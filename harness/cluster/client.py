"""The devices that a Dask scheduler's workers offer: an engine as the local one, each device a Dask resource."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from harness.check import shard_task
from harness.check.engine import UnreachableError
from harness.check.message import SCHEMA
from harness.core import extras
from harness.core.errors import SetupError

ANNOUNCED = "harness"  # in what a worker tells the scheduler of itself
CONNECT_S = 10.0
RECONNECT_S = 2.0
PATIENCE_S = 60.0
LARGE = "1 GiB"  # Dask warns of messages above 10 MB; a shard with its variants is more


@dataclass(frozen=True)
class Keys:
    """PEM files for TLS, as Dask's Security takes them; none: no TLS."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def security(self) -> Any:
        """A distributed.Security, or none. Raises SetupError: some files named and not others, or missing."""
        files = {"ca": self.ca, "cert": self.cert, "key": self.key}
        if not any(files.values()):
            return None
        for name, path in files.items():
            if path is None or not path.is_file():
                raise SetupError(f"--tls-{name} {path or '(not named)'}: expected a PEM file; TLS needs all three")
        from distributed.security import Security

        ca, cert, key = str(self.ca), str(self.cert), str(self.key)
        roles = {
            f"tls_{role}_{what}": path
            for role in ("client", "scheduler", "worker")
            for what, path in (("cert", cert), ("key", key))
        }
        return Security(tls_ca_file=ca, require_encryption=True, **roles)


class Cluster:
    """Use with `with`. Raises SetupError: no Dask, nothing answers there, workers of another version."""

    def __init__(self, address: str, keys: Keys = Keys(), patience_s: float = PATIENCE_S) -> None:
        self.address = address
        self.patience_s = patience_s
        self._keys = keys
        self._executors: dict[str, Executor] = {}
        self._client: Any = None
        self._scheduler = ""  # which run of it the client was connected to
        self._given: set[Future[bytes]] = set()
        self._lock = threading.RLock()  # devices of a fleet ask at once

    def __enter__(self) -> Self:
        try:
            self._client = self._connect(CONNECT_S)
        except (OSError, ValueError, TypeError) as error:  # a timeout is an OSError
            raise SetupError(
                f"--scheduler {self.address}: no scheduler answers there ({_first_line(error)}); start one with "
                "harness lab scheduler, or name its address as tcp://HOST:PORT"
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        """What still runs there ends unheard."""
        self._disconnect()

    def _connect(self, timeout_s: float) -> Any:
        distributed = import_distributed()
        security = self._keys.security()
        self._knock(timeout_s)
        return distributed.Client(self.address, timeout=timeout_s, security=security, set_as_default=False)

    def _knock(self, timeout_s: float) -> None:
        """Raise OSError or ValueError where nothing listens: a Dask client that cannot connect lingers."""
        where = urlsplit(self.address)
        if where.scheme not in ("tcp", "tls") or not where.hostname or not where.port:
            raise ValueError("expected tcp://HOST:PORT")
        if (where.scheme == "tls") != bool(self._keys.ca):
            raise ValueError("tls:// needs --tls-ca, --tls-cert and --tls-key, and they need tls://")
        socket.create_connection((where.hostname, where.port), timeout_s).close()

    def _disconnect(self) -> None:
        """Jobs that were given are cancelled on this side."""
        client, self._client, self._scheduler = self._client, None, ""
        self._executors.clear()
        if client is not None:
            with suppress(Exception):
                client.close(timeout=2)
        for future in list(self._given):  # one that was lost on the way Dask knows nothing of
            if future.cancel():
                with suppress(Exception):
                    future.set_running_or_notify_cancel()

    def devices(self) -> Mapping[str, Mapping[str, Any]]:
        """What the workers announced of each device. Empty while the scheduler is not to be reached."""
        return {
            device["uri"]: {**device, "worker": worker["name"]}
            for worker in self._workers()
            for device in worker.get(ANNOUNCED, {}).get("devices", ())
        }

    def check_versions(self) -> None:
        """Raise SetupError where a worker would not understand, or has another worker file."""
        ours = {"schema": SCHEMA, "worker_sha256": shard_task.worker_sha256()}
        for worker in self._workers():
            theirs = worker.get(ANNOUNCED)
            if theirs is None:
                raise SetupError(
                    f"{self.address}: worker {worker['name']} is no lab worker; start it with harness lab worker"
                )
            for key, expected in ours.items():
                if theirs.get(key) != expected:
                    raise SetupError(
                        f"{self.address}: worker {worker['name']} has {key} {str(theirs.get(key))[:20]}, this host has "
                        f"{expected[:20]}; install the same tflite-harness on both"
                    )

    def submit(self, device: str, content: bytes) -> Future[bytes]:
        """Raises UnreachableError: no scheduler."""
        with self._lock:
            if self._client is None:
                raise UnreachableError(f"{self.address}: the scheduler is out of reach")
            if device not in self._executors:
                self._executors[device] = self._client.get_executor(resources={device: 1}, pure=False, retries=0)
            try:
                future = self._executors[device].submit(shard_task.perform, content)
            except Exception as error:  # whatever a connection breaks with
                raise UnreachableError(f"{self.address}: {_first_line(error)}") from error
            self._given.add(future)
            future.add_done_callback(self._given.discard)
            return future

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


def choose(devices: Mapping[str, Mapping[str, Any]], named: Sequence[str], where: str) -> list[str]:
    """The devices that one check is spread over: those named, or all, which must be alike. Raises SetupError."""
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
            "--device, or judge each by harness fleet"
        )
    return list(chosen)


def like(facts: Mapping[str, Any]) -> str:
    """What two devices must share for one verdict: runtime, architecture, processor."""
    return ", ".join(str(facts.get(key, "unavailable")) for key in ("runtime", "machine", "processor"))


def import_distributed() -> Any:
    """The package, quiet. Raises SetupError where it is missing."""
    try:
        import dask
        import distributed
    except ModuleNotFoundError as error:
        raise extras.missing("lab", "a lab needs Dask, here and on every host") from error
    dask.config.set({"distributed.admin.large-graph-warning-threshold": LARGE})
    for name in (
        "distributed",
        "distributed.worker",
        "distributed.scheduler",
        "distributed.core",
        "distributed.client",
    ):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return distributed


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
