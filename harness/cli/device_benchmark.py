"""`harness device benchmark`."""

from __future__ import annotations

import argparse

from harness.cli import flags
from harness.core.errors import Exit

EXAMPLE = "harness device benchmark --variants int8"


def add_flags(parser: argparse.ArgumentParser) -> None:
    flags.add(parser, "--models", "--variants", "--threads", *flags.IMAGES)
    parser.add_argument(
        "--turns", type=flags.count(), default=10, metavar="N", help="of both sides (default: %(default)s)"
    )


def run(options: argparse.Namespace) -> int:
    from harness.output import terminal
    from harness.tools import litert_benchmark

    with terminal.Bars() as bars:
        results = litert_benchmark.variants(
            options.models,
            options.variants,
            options.data,
            options.threads,
            options.turns,
            bars,
            skip_bad=options.skip_bad,
        )
    print(terminal.benchmark(results))
    return Exit.PASS
