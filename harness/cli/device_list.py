"""`harness device list`."""

from __future__ import annotations

import argparse

from harness.core.errors import Exit

EXAMPLE = "harness device list ssh://pi@raspberrypi.local"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("uri", nargs="*", metavar="URI", help="ssh:// devices to examine besides those adb knows")


def run(options: argparse.Namespace) -> int:
    from harness.run.devices import listing

    seen = listing.look(options.uri)
    print(listing.text(seen))
    return Exit.SETUP if any(device.problem for device in seen if device.uri in options.uri) else Exit.PASS
