"""`harness lab scheduler` and `harness lab worker`: Dask's own, on this machine alone unless TLS is configured."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from harness.check.shard_task import RefusedError, ShardAnswer, ShardJob, run_shard, worker_sha256
from harness.cluster import inventory
from harness.cluster.security import LOOPBACK, Keys, check_address, check_host, is_loopback
from harness.core import extras
from harness.core.errors import Exit, SetupError
from harness.run.devices import local, uri

ANNOUNCED = "harness"  # in what a worker tells the scheduler about itself
PORT = 8786
LOST_AFTER_S = 30.0  # without a sign of life a worker counts as gone
RECONNECT_S = 1.0
LARGE = "1 GiB"  # Dask warns of messages above 10 MB; a shard with its variants is more

_busy: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)  # a worker that reconnects may still run a job


def import_distributed() -> Any:
    """The package, quiet. Raises SetupError where it is missing."""
    try:
        import dask
        import distributed
    except ModuleNotFoundError as error:
        raise extras.missing("lab", "a lab needs Dask, here and on every host") from error
    dask.config.set({"distributed.admin.large-graph-warning-threshold": LARGE})
    for part in ("", ".worker", ".scheduler", ".core", ".client"):
        logging.getLogger(f"distributed{part}").setLevel(logging.CRITICAL)
    return distributed


def run_offered(device: str, job: ShardJob) -> ShardAnswer:
    """Run a job inside a Dask worker. Raises RefusedError for a device that this worker does not offer."""
    from distributed import get_worker

    worker = get_worker()
    if device not in worker.state.total_resources:
        raise RefusedError(f"{worker.name}: does not offer {device!r}; it offers {list(worker.state.total_resources)}")
    with _busy[device]:
        return run_shard(job, uri.device(local.URI if device.startswith(f"{local.URI}:") else device))


def scheduler(host: str | None, port: int, keys: Keys, lost_after_s: float = LOST_AFTER_S) -> int:
    """Run a scheduler until Ctrl-C or SIGTERM. Raises SetupError: open to other hosts without TLS."""
    check_host(host or LOOPBACK, keys)
    distributed = import_distributed()
    import dask

    dask.config.set({"distributed.scheduler.worker-ttl": lost_after_s})

    async def serve(stop: asyncio.Event) -> None:
        async with distributed.Scheduler(
            host=host or LOOPBACK,
            port=port,
            dashboard=False,
            dashboard_address=f"{LOOPBACK}:0",
            security=keys.security(),
            protocol="tls" if keys.ca else "tcp",
        ) as running:
            print(f"scheduler at {running.address}; stop it with Ctrl-C", flush=True)
            await stop.wait()

    return _until_stopped(serve, f"{host or LOOPBACK}:{port}")


def lab_worker(address: str, host: str | None, name: str | None, named: Sequence[str], keys: Keys) -> int:
    """Offer devices to a scheduler until Ctrl-C or SIGTERM; where it goes away, wait for it.

    named: devices besides those that are found. Raises SetupError: a scheduler elsewhere, and no address named that it
    may reach this worker by; open to other hosts without TLS; no device.
    """
    distributed = import_distributed()
    scheduler_host, _ = check_address(address, keys)
    if host is None and not is_loopback(scheduler_host):
        raise SetupError(
            f"{address}: a scheduler on another host must be able to reach this worker; name the address of this host "
            "that it may listen on: --host ADDRESS"
        )
    check_host(host or LOOPBACK, keys)
    name = name or platform.node()
    offered, problems = inventory.look(named, name)
    for problem in problems:
        print(f"harness lab worker: {problem}", file=sys.stderr, flush=True)
    if unseen := [uri for uri in named if uri != local.URI and uri not in offered]:
        raise SetupError(f"{', '.join(unseen)}: cannot be reached from here; see above")
    about = {
        "worker_sha256": worker_sha256(),
        "devices": [{**facts, "uri": device} for device, facts in offered.items()],
    }

    async def serve(stop: asyncio.Event) -> None:
        while not stop.is_set():
            with suppress(OSError, asyncio.TimeoutError):
                async with distributed.Worker(
                    address,
                    host=host or LOOPBACK,
                    name=name,
                    nthreads=len(offered),
                    resources=dict.fromkeys(offered, 1),
                    startup_information={ANNOUNCED: lambda _: about},
                    security=keys.security(),
                    dashboard_address=f"{LOOPBACK}:0",
                    memory_limit=0,
                ) as running:
                    print(f"{name}: {', '.join(offered)} offered to {address}", flush=True)
                    waiting = [asyncio.ensure_future(running.finished()), asyncio.ensure_future(stop.wait())]
                    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                    for task in waiting:
                        task.cancel()
            if not stop.is_set():
                print(f"{name}: {address} is out of reach; trying again", flush=True)
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(stop.wait(), RECONNECT_S)

    return _until_stopped(serve, address)


def _until_stopped(serve: Callable[[asyncio.Event], Awaitable[None]], where: str) -> int:
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
