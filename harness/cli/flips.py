"""`harness flips`."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.core.errors import Exit

DOES = "show the images whose answer changed"
EXAMPLE = "harness flips runs/check.json --html runs/flips.html"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("record", type=Path, metavar="RUN", help="what harness check --json wrote, or its folder")
    parser.add_argument("--html", type=Path, metavar="FILE", help="a page with the images, all in one file")


def run(options: argparse.Namespace) -> int:
    from harness.core.files import check_writable, write_atomic
    from harness.output import terminal
    from harness.records import evidence, flips

    if options.html:
        from harness.output.report import flips as page  # fails here where the extra is missing, before the work

        check_writable(options.html.parent)
    record = evidence.again(options.record)
    print(terminal.flips(flips.of(record)))
    if options.html:
        write_atomic(options.html, page.page(record).encode())
        print(f"written: {options.html}")
    return Exit.PASS
