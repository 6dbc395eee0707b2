"""`harness flips`."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.errors import Exit

DOES = "show the images whose answer changed"
EXAMPLE = "harness flips runs/check.json --html runs/flips.html"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("record", type=Path, metavar="RUN", help="what harness check --json wrote, or its folder")
    parser.add_argument("--html", type=Path, metavar="FILE", help="a page with the images, all in one file")


def run(options: argparse.Namespace) -> int:
    from harness import evidence, flips, terminal
    from harness.files import check_writable, write_atomic

    if options.html:
        from harness.report import flips as page  # fails here where the extra is missing, before the work

        check_writable(options.html.parent)
    record = evidence.again(options.record)
    print(terminal.flips(flips.of(record)))
    if options.html:
        write_atomic(options.html, page.page(record).encode())
        print(f"written: {options.html}")
    return Exit.PASS
