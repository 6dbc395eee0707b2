"""`harness release compare`, in short `harness compare`."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "harness compare baseline/check.json runs/check.json"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("before", type=Path, metavar="EARLIER.json")
    parser.add_argument("after", type=Path, metavar="LATER.json")
    parser.add_argument("--anyway", action="store_true", help="even if the model or the policy differs")


def run(options: argparse.Namespace) -> int:
    from harness.core.outcome import EXIT_CODES
    from harness.output import terminal
    from harness.records import compare

    comparison = compare.compare(options.before, options.after, anyway=options.anyway)
    print(terminal.runs(comparison))
    return EXIT_CODES[comparison.outcome]
