"""`harness device virtual`."""

from __future__ import annotations

import argparse

from harness.core.errors import Exit

EXAMPLE = "harness device virtual phone"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=("phone", "pi"))
    parser.add_argument(
        "action",
        nargs="?",
        choices=("start", "stop", "remove"),
        default="start",
        help="remove also deletes what is on it (default: start)",
    )


def run(options: argparse.Namespace) -> int:
    from harness.output import terminal
    from harness.run.devices.virtual import Virtual

    device = Virtual(options.kind)
    if options.action == "start":
        with terminal.step(f"virtual {options.kind}"):
            uri = device.start()
        print(f"{uri}\nnext: harness check --device '{uri}'; harness device virtual {options.kind} stop ends it")
    elif options.action == "stop":
        print("stopped" if device.stop() else "it was not running")
    else:
        device.remove()
        print("removed")
    return Exit.PASS
