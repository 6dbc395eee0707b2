"""`harness virtual`."""

from __future__ import annotations

import argparse

from harness.core.errors import Exit

DOES = "start a phone or a Raspberry Pi of ARM without hardware, under emulation"
EXAMPLE = "harness virtual phone"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=("phone", "pi"))
    parser.add_argument(
        "action",
        nargs="?",
        choices=("start", "stop", "remove"),
        default="start",
        help="remove deletes what is on it, too (default: start)",
    )


def run(options: argparse.Namespace) -> int:
    from harness.output import terminal
    from harness.run.devices.virtual import Virtual

    device = Virtual(options.kind)
    if options.action == "start":
        with terminal.step(f"virtual {options.kind}"):
            uri = device.start()
        print(f"{uri}\nnext: harness check --device '{uri}'; harness virtual {options.kind} stop ends it")
    elif options.action == "stop":
        print("stopped" if device.stop() else "it was not running")
    else:
        device.remove()
        print("removed")
    return Exit.PASS
