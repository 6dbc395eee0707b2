"""`harness lab`."""

from __future__ import annotations

import argparse

from harness.cli import flags

DOES = "offer this host's devices to a lab, or run the lab's scheduler"
EXAMPLE = "harness lab worker tcp://127.0.0.1:8786"


def add_flags(parser: argparse.ArgumentParser) -> None:
    roles = parser.add_subparsers(dest="role", required=True, metavar="ROLE")
    scheduler = roles.add_parser("scheduler", help="the one that hands out jobs; one a lab")
    scheduler.add_argument("--port", type=int, default=8786, metavar="N", help="to listen on (default: %(default)s)")
    scheduler.add_argument(
        "--lost-after",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="a worker without a sign of life that long counts as gone (default: %(default)s)",
    )
    worker = roles.add_parser("worker", help="the one that has devices; one a host")
    worker.add_argument("scheduler", metavar="tcp://HOST:PORT", help="the scheduler's address")
    worker.add_argument("--name", metavar="NAME", help="of this host in the lab (default: its host name)")
    worker.add_argument(
        "--device",
        action="append",
        default=[],
        metavar="URI",
        help="ssh://[user@]host[:port] to offer besides this machine and what adb knows; may be repeated",
    )
    for role in (scheduler, worker):
        role.add_argument(
            "--host", metavar="ADDRESS", help="of this host, to listen on (default: 127.0.0.1, this host alone)"
        )
        flags.add_tls(role)


def run(options: argparse.Namespace) -> int:
    from harness.cluster import serve

    keys = flags.tls(options)
    if options.role == "scheduler":
        return serve.scheduler(options.host, options.port, keys, options.lost_after)
    return serve.lab_worker(options.scheduler, options.host, options.name, options.device, keys)
