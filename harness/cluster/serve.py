"""`harness lab scheduler` and `harness lab worker`: Dask's, bound to loopback unless asked otherwise, and restricted.

Dask's protocol carries pickled code. These two unpickle nothing but messages for `work.perform`, so that a worker runs
no code but its own: see `_Unpickler`.
"""

from __future__ import annotations

import asyncio
import io
import ipaddress
import os
import pickle
import platform
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from harness.check import shard_task
from harness.check.message import SCHEMA
from harness.cluster import inventory
from harness.cluster.client import ANNOUNCED, Keys, import_distributed
from harness.core.errors import Exit, SetupError
from harness.run.devices.local import URI

LOOPBACK = "127.0.0.1"
PORT = 8786
LOST_AFTER_S = 30.0  # without a sign of life a worker counts as gone
AGAIN_S = 1.0
RUNS_CODE = {  # handlers of Dask's that run or load what they are sent, and that a lab does not need
    "run", "run_coroutine", "run_function", "plugin-add", "upload_file", "actor_execute", "feed", "broadcast", "proxy",
    "register_scheduler_plugin", "register_worker_plugin", "register_nanny_plugin", "benchmark_disk",
}  # fmt: skip
ALLOWED = {
    ("builtins", "bytes"),
    ("dask._expr", "Expr._reconstruct"),
    ("dask._expr", "LLGExpr"),
    ("dask._task_spec", "Task"),
    (shard_task.__name__, shard_task.perform.__name__),
}


class _Unpickler(pickle.Unpickler):
    """What Dask needs to carry a call of `work.perform` with bytes, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name}: a lab runs nothing but harness jobs")
        return super().find_class(module, name)


def restrict() -> None:
    """From now on this process's Dask unpickles what `_Unpickler` allows."""
    import distributed.protocol.pickle
    import distributed.scheduler

    def loads(content: Any, *, buffers: Sequence[Any] = ()) -> Any:
        return _Unpickler(io.BytesIO(content), buffers=buffers).load()

    restricted = SimpleNamespace(**vars(pickle) | {"loads": loads})
    distributed.protocol.pickle.pickle = restricted
    distributed.scheduler.pickle = restricted


def scheduler(host: str | None, port: int, keys: Keys, lost_after_s: float = LOST_AFTER_S) -> int:
    """Run a scheduler until Ctrl-C or SIGTERM."""
    distributed = import_distributed()
    import dask

    dask.config.set({"distributed.scheduler.worker-ttl": lost_after_s})
    restrict()

    from distributed.scheduler import DEFAULT_EXTENSIONS

    # That one sends workers a plugin, which is code.
    extensions = {name: extension for name, extension in DEFAULT_EXTENSIONS.items() if name != "shuffle"}

    async def serve(stop: asyncio.Event) -> None:
        async with distributed.Scheduler(
            host=host or LOOPBACK,
            port=port,
            dashboard=False,
            dashboard_address=f"{LOOPBACK}:0",
            security=keys.security(),
            protocol="tls" if keys.ca else "tcp",
            extensions=extensions,
        ) as one:
            _disarm(one)
            print(f"scheduler at {one.address}; stop it with Ctrl-C", flush=True)
            _warn(host, keys)
            await stop.wait()

    return _until_stopped(serve, f"{host or LOOPBACK}:{port}")


def lab_worker(address: str, host: str | None, name: str | None, named: Sequence[str], keys: Keys) -> int:
    """Offer devices to a scheduler until Ctrl-C or SIGTERM; where it goes away, wait for it.

    named: devices besides those that are found. Raises SetupError: a scheduler elsewhere, and no address named that it
    may reach this worker by; no device.
    """
    distributed = import_distributed()
    restrict()
    if host is None and not is_loopback(address):
        raise SetupError(
            f"{address}: a scheduler on another host must be able to reach this worker; name the address of this host "
            "that it may listen on: --host ADDRESS"
        )
    name = name or platform.node()
    offered, problems = inventory.look(named, name)
    for problem in problems:
        print(f"harness lab worker: {problem}", file=sys.stderr, flush=True)
    if unseen := [uri for uri in named if uri != URI and uri not in offered]:
        raise SetupError(f"{', '.join(unseen)}: not to be reached from here; see above")
    about = {
        "schema": SCHEMA,
        "worker_sha256": shard_task.worker_sha256(),
        "devices": [{**facts, "uri": uri} for uri, facts in offered.items()],
    }

    async def serve(stop: asyncio.Event) -> None:
        _warn(host, keys)
        while not stop.is_set():
            with suppress(OSError, asyncio.TimeoutError):
                one = distributed.Worker(
                    address,
                    host=host or LOOPBACK,
                    name=name,
                    nthreads=len(offered),
                    resources=dict.fromkeys(offered, 1),
                    startup_information={ANNOUNCED: lambda _: about},
                    security=keys.security(),
                    dashboard_address=f"{LOOPBACK}:0",
                    memory_limit=0,
                    validate=False,
                )
                _disarm(one)
                async with one:
                    print(f"{name}: {', '.join(offered)} offered to {address}", flush=True)
                    gone, stopped = asyncio.ensure_future(one.finished()), asyncio.ensure_future(stop.wait())
                    await asyncio.wait({gone, stopped}, return_when=asyncio.FIRST_COMPLETED)
                    gone.cancel()
                    stopped.cancel()
            if not stop.is_set():
                print(f"{name}: {address} is out of reach; trying again", flush=True)
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(stop.wait(), AGAIN_S)

    return _until_stopped(serve, address)


def is_loopback(address: str) -> bool:
    """Whether an address as tcp://HOST:PORT is of this machine alone."""
    host = urlsplit(address).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _disarm(server: Any) -> None:
    for handler in RUNS_CODE:
        server.handlers.pop(handler, None)


def _warn(host: str | None, keys: Keys) -> None:
    if host and not is_loopback(f"tcp://{host}") and not keys.ca:
        print(
            f"harness lab: listening on {host} without TLS: whoever reaches it can have jobs run; see docs/lab.md",
            file=sys.stderr,
            flush=True,
        )


def _until_stopped(serve: Any, where: str) -> int:
    async def main() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve(stop)

    try:
        asyncio.run(main())
    except OSError as error:
        raise SetupError(
            f"{where}: cannot listen there ({error.strerror or error}); name another --host or --port"
        ) from error
    sys.stdout.flush()
    os._exit(Exit.PASS)  # threads of jobs that nobody waits for any more would hold it
