"""`harness inspect`."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli import flags
from harness.errors import Exit

DOES = "say what is in a .tflite file"
EXAMPLE = "harness inspect models/tflite/int8.tflite"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE.tflite")
    flags.add_runtime(parser, "load the file in")


def run(options: argparse.Namespace) -> int:
    from converters.inspection import inspect
    from harness import terminal

    print(terminal.inspected(inspect(options.file, options.runtime)))
    return Exit.PASS
