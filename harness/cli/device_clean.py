"""`harness device clean`."""

from __future__ import annotations

import argparse

EXAMPLE = "harness device clean ssh://pi@raspberrypi.local"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("uri", nargs="+", metavar="URI", help="ssh://[user@]host[:port] or adb://[serial]")


def run(options: argparse.Namespace) -> int:
    from harness.run.devices import listing

    return listing.clean(options.uri)
