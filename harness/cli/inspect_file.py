"""`harness inspect`."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli import flags
from harness.core.errors import Exit

EXAMPLE = "harness inspect models/tflite/int8.tflite"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE.tflite")
    flags.add(parser, "--runtime")


def run(options: argparse.Namespace) -> int:
    from harness.output import terminal
    from harness.tools.inspection import inspect

    print(terminal.inspected(inspect(options.file, options.runtime)))
    return Exit.PASS
