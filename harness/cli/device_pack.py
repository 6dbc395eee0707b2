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
    from harness.check.references import KerasReferences
    from harness.core.files import check_writable
    from harness.images import shards
    from harness.judge import policy
    from harness.output import terminal
    from harness.output.formats.figures import size

    check_writable(options.file.parent)
    subject = flags.subject(options, policy.load(options.policy))
    source = shards.open_source(options.data, subject.spec, labelled=not options.unlabelled)
    with KerasReferences(options.reference, options.models, terminal.step) as references:
        images = pack.write(subject, source, references, options.file, skip_bad=options.skip_bad)
    print(
        f"{options.file}: {len(subject.variants)} variants, {images} images, {size(options.file.stat().st_size)}\n"
        f"there: python3 {options.file.name}"
    )
    return Exit.PASS
