"""`harness device pack`."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli import flags
from harness.core.errors import Exit

EXAMPLE = "harness device pack runs/job.zip"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE.zip")
    flags.add(parser, *flags.SUBJECT)


def run(options: argparse.Namespace) -> int:
    from harness.check import pack
    from harness.core.files import check_writable
    from harness.judge import policy
    from harness.output import terminal
    from harness.output.formats.figures import size

    limits = policy.load(options.policy)
    check_writable(options.file.parent)
    with terminal.Bars() as bars:
        subject = flags.subject(options, limits, bars)
    pack.write(subject, limits, options.file)
    print(
        f"{options.file}: {len(subject.variants)} variants, {len(subject.data)} images, "
        f"{size(options.file.stat().st_size)}\n"
        f"there: python3 {options.file.name}"
    )
    return Exit.PASS
