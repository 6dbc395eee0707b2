"""`harness profile`."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli import flags
from harness.core.errors import Exit, SetupError

DOES = "show where a variant's time goes on this machine, beside what its work costs at least"
EXAMPLE = "harness profile int8 --layers 20"
MOST_IMAGES = 200


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", metavar="KIND", help="a variant's kind, or a .tflite file")
    parser.add_argument("--layers", type=int, default=10, metavar="N", help="of the slowest (default: %(default)s)")
    flags.add_models(parser)
    flags.add_data(parser)


def run(options: argparse.Namespace) -> int:
    from harness.artifacts import manifest
    from harness.images import dataset
    from harness.output import terminal
    from harness.output.terminal import profile as shown
    from harness.tools import classifier, op_profile

    if options.layers < 0:
        raise SetupError(f"--layers {options.layers}: expected 0 or more")
    path, kind = Path(options.kind), Path(options.kind).stem
    if path.suffix != ".tflite":
        variants = manifest.read(options.models)
        if options.kind not in variants:
            known = ", ".join(variants) or "none"
            raise SetupError(f"{options.models}: has no variant {options.kind!r}; it has {known}")
        path, kind = variants[options.kind].path(options.models), options.kind
    elif not path.exists():
        raise SetupError(f"{path}: no such file; expected a .tflite")
    takes = classifier.open_model(path, options.models).spec
    pixels = dataset.load(options.data, takes, skip_bad=options.skip_bad).images[::20][:MOST_IMAGES]
    with terminal.step(f"profiling {path.name}"):
        found = op_profile.measure(path, takes.to_input(pixels), kind)
    print(shown.table(found, options.layers))
    return Exit.PASS
