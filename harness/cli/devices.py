"""`harness devices`."""

from __future__ import annotations

import argparse

from harness.core.errors import Exit

DOES = "list the devices that can be reached, and say what is wrong with the others"
EXAMPLE = "harness devices ssh://pi@raspberrypi.local"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "uri", nargs="*", metavar="URI", help="ssh://[user@]host[:port] to look at besides what adb knows"
    )
    parser.add_argument("--clean", action="store_true", help="remove all files of the harness from the named devices")


def run(options: argparse.Namespace) -> int:
    from harness.run.devices import listing

    if options.clean:
        return listing.clean(options.uri)
    seen = listing.look(options.uri)
    print(listing.text(seen))
    return Exit.SETUP if any(one.problem for one in seen if one.uri in options.uri) else Exit.PASS
