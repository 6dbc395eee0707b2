"""`harness compare`."""

from __future__ import annotations

import argparse
from pathlib import Path

DOES = "judge a run against an earlier one of the same images, as CI does against its baseline"
EXAMPLE = "harness compare baseline/check.json runs/check.json"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("before", type=Path, metavar="EARLIER.json")
    parser.add_argument("after", type=Path, metavar="LATER.json")
    parser.add_argument("--anyway", action="store_true", help="also where model or policy differ")


def run(options: argparse.Namespace) -> int:
    from harness.core.outcome import EXIT_CODES as OUTCOME_CODES
    from harness.output import terminal
    from harness.records import compare

    found = compare.compare(options.before, options.after, anyway=options.anyway)
    print(terminal.runs(found))
    return OUTCOME_CODES[found.outcome]
