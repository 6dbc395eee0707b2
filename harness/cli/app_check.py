"""`harness app check`, or `harness app DUMP`."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli import flags

EXAMPLE = "harness app check my/dump.jsonl --golden my/golden"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dump", type=Path, metavar="DUMP", help="what the app wrote: JSON lines, or .npz")
    parser.add_argument(
        "--golden", type=Path, metavar="DIR", help="the bundle whose images it was given (default: DUMP's folder)"
    )
    flags.add(parser, *flags.POLICY, "--json")


def run(options: argparse.Namespace) -> int:
    from harness.core.outcome import EXIT_CODES
    from harness.judge import policy
    from harness.output import terminal
    from harness.output.files import Outputs
    from harness.tools import app

    outputs = Outputs({"formats.plain_json": options.json})
    limits = policy.load(options.policy)
    with terminal.step(f"examining {options.dump}"):
        report = app.examine(options.dump, options.golden or options.dump.parent, limits)
    outputs.show(terminal.app(report))
    outputs.write(report)
    return EXIT_CODES[report.verdict.outcome]
