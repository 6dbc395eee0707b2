"""`harness lab worker`."""

from __future__ import annotations

import argparse

from harness.cli import flags

EXAMPLE = "harness lab worker tcp://127.0.0.1:8786"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scheduler", metavar="tcp://HOST:PORT", help="the scheduler's address")
    parser.add_argument("--name", metavar="NAME", help="this host's name in the lab (default: its host name)")
    flags.add(
        parser,
        "--device",
        default=[],
        help="ssh://[user@]host[:port] to offer besides this machine and the devices adb knows; may be repeated",
    )
    flags.add(parser, "--host", *flags.TLS)


def run(options: argparse.Namespace) -> int:
    from harness.cluster import serve

    return serve.lab_worker(options.scheduler, options.host, options.name, options.device, flags.tls(options))
