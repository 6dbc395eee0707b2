"""`harness lab check`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness.cli import flags
from harness.core.errors import Exit

EXAMPLE = "harness lab check fleet.toml --scheduler tcp://127.0.0.1:8786"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="TOML: devices, variants, policy; see docs/lab.md")
    flags.add(parser, "--scheduler", *flags.TLS)


def run(options: argparse.Namespace) -> int:
    from harness.check import fleet
    from harness.check.engine import Engine, LocalEngine
    from harness.cluster import client, inventory
    from harness.core.outcome import EXIT_CODES as OUTCOME_CODES
    from harness.output import terminal

    asked = fleet.read(options.file)
    engine: Engine
    if options.scheduler:
        engine = client.Cluster(options.scheduler, flags.tls(options))
    else:
        known, problems = inventory.look([entry.uri for entry in asked.device if entry.uri])
        for problem in problems:
            print(f"harness lab check: {problem}", file=sys.stderr)
        engine = LocalEngine(known, known=known)
    with engine, terminal.Bars() as bars:
        done, interrupted = fleet.run(asked, engine, str(options.file), terminal.step, bars)
    print(terminal.fleet(done))
    print(f"records: {asked.results}")
    return Exit.INTERRUPTED if interrupted else OUTCOME_CODES[fleet.outcome(done)]
