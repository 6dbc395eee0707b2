"""`harness lab scheduler`."""

from __future__ import annotations

import argparse

from harness.cli import flags

EXAMPLE = "harness lab scheduler --host 10.0.0.1"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--port", type=flags.count(0), default=8786, metavar="N", help="port to listen on (default: %(default)s)"
    )
    parser.add_argument(
        "--lost-after",
        type=flags.seconds,
        default=30.0,
        metavar="S",
        help="seconds without a sign of life after which a worker counts as lost (default: %(default)s)",
    )
    flags.add(parser, "--host", *flags.TLS)


def run(options: argparse.Namespace) -> int:
    from harness.cluster import serve

    return serve.scheduler(options.host, options.port, flags.tls(options), options.lost_after)
