"""`harness lab check`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli import flags
from harness.core.errors import Exit

if TYPE_CHECKING:
    from harness.check.engine import Engine
    from harness.check.fleet import Fleet
    from harness.core.progress import Bars

EXAMPLE = "harness lab check fleet.toml --scheduler tcp://127.0.0.1:8786"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="TOML: devices, variants, policy; see docs/lab.md")
    flags.add(parser, "--scheduler", *flags.TLS)


def run(options: argparse.Namespace) -> int:
    from harness.check import fleet
    from harness.core.outcome import EXIT_CODES as OUTCOME_CODES
    from harness.output import terminal

    asked = fleet.read(options.file)
    with terminal.Bars() as bars, _engine(options, asked, bars) as engine:
        judged = fleet.run(asked, engine, str(options.file), terminal.step, bars)
        interrupted = engine.stopped.is_set()
    print(terminal.fleet(judged))
    print(f"records: {asked.results}")
    return Exit.INTERRUPTED if interrupted else OUTCOME_CODES[fleet.outcome(judged)]


def _engine(options: argparse.Namespace, asked: Fleet, bars: Bars) -> Engine:
    from harness.check.engine import LocalEngine
    from harness.cluster import client, inventory

    if options.scheduler:
        return client.Cluster(options.scheduler, flags.tls(options))
    known, problems = inventory.look([entry.uri for entry in asked.device if entry.uri])
    for problem in problems:
        print(f"harness lab check: {problem}", file=sys.stderr)
    return LocalEngine(list(known), bars, known)
