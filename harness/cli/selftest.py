"""`harness selftest`."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli import flags
from harness.core.errors import Exit

DOES = "break a sound variant on the spot, in every way known, and require that none passes"
EXAMPLE = "harness selftest"


def add_flags(parser: argparse.ArgumentParser) -> None:
    flags.add_models(parser)
    flags.add_reference(parser)
    parser.add_argument("--data", type=Path, default=flags.DATA, metavar="DIR", help="images (default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    from harness.output import terminal
    from harness.tools import selftest

    cases = selftest.run(options.models, options.reference, options.data, terminal.step)
    print(terminal.cases(cases))
    if all(case.held for case in cases):
        return Exit.PASS
    return Exit.INCONCLUSIVE if all(case.held or case.given == selftest.NOT_RUN for case in cases) else Exit.FAIL
