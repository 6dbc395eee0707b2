"""`harness verdict`."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli import flags

DOES = "derive a stored run's verdict again, without models or images"
EXAMPLE = "harness verdict runs/check.json"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("record", type=Path, metavar="RUN", help="what harness check --json wrote, or its folder")
    flags.add_policy(parser)


def run(options: argparse.Namespace) -> int:
    from harness.core.outcome import EXIT_CODES as OUTCOME_CODES
    from harness.output import terminal
    from harness.records import evidence

    judged = evidence.again(options.record, options.policy)
    print(terminal.table(judged))
    return OUTCOME_CODES[judged.outcome]
