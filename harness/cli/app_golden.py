"""`harness app golden`, or `harness golden`."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli import flags
from harness.core.errors import Exit

EXAMPLE = "harness app golden int8 --images 50 --out my/golden"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", metavar="VARIANT", help="a variant of the folder")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the bundle")
    flags.add(parser, "--images", "--models", "--reference", *flags.IMAGES, *flags.POLICY)


def run(options: argparse.Namespace) -> int:
    from harness.check import references, subject
    from harness.core.cell import Cell
    from harness.images import shards
    from harness.judge import policy
    from harness.output import terminal
    from harness.tools import golden, golden_images

    limits = policy.load(options.policy)
    checked = subject.load(options.models, options.reference, limits, (options.kind,))
    spec = checked.spec
    with terminal.step(f"choosing {options.images} images of {options.data}"):
        source = shards.open_source(options.data, spec)
        chosen = golden_images.choose(source, spec, options.images, skip_bad=options.skip_bad)
    data = golden_images.as_dataset(chosen, spec)
    reference = references.obtain(options.reference, data, options.models, terminal.step)
    tolerance = limits.limits(Cell(options.kind)).max_probability_difference
    with terminal.step(f"{options.kind} on {len(chosen)} images"):
        written = golden.write(
            options.out, checked.variants[options.kind], checked.contents[options.kind], chosen, reference, tolerance
        )
    print(terminal.bundle(written, options.out))
    return Exit.PASS
