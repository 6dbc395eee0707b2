"""`harness verdict`."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli import flags

EXAMPLE = "harness verdict runs/check.json"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("record", type=Path, metavar="RUN", help="a record of harness check, or its folder")
    flags.add(parser, *flags.POLICY)


def run(options: argparse.Namespace) -> int:
    from harness.core.outcome import EXIT_CODES
    from harness.output import terminal
    from harness.records.rejudge import rejudge

    record = rejudge(options.record, options.policy)
    print(terminal.table(record))
    return EXIT_CODES[record.outcome]
