"""`harness reference`."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from harness.cli import flags
from harness.core.errors import Exit

DOES = "compute and store the Keras model's outputs"
EXAMPLE = "harness reference models/resnet164.keras"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL.keras")
    flags.add_models(parser, "folder to store them in")
    flags.add_data(parser)
    flags.add_config(parser)
    flags.add_import(parser)


def run(options: argparse.Namespace) -> int:
    from harness.artifacts import reference
    from harness.core.files import check_writable
    from harness.images import dataset
    from harness.output import terminal
    from harness.tools import classifier

    check_writable(options.models)
    model = classifier.open_model(options.model, options.models, config=options.model_config, imports=options.imports)
    with terminal.Bars() as bars:
        progress = partial(bars, f"reading {options.data}")
        data = dataset.load(options.data, model.spec, skip_bad=options.skip_bad, progress=progress)
    made = reference.obtain(options.model, data, options.models, terminal.step, imports=options.imports)
    accuracy = float((made.outputs.argmax(axis=1) == data.labels).mean())
    print(f"{options.model}: accuracy {accuracy:.2%} on {len(data)} images of {options.data}")
    usual = max(data.labels.tolist().count(label) for label in set(data.labels.tolist())) / len(data)
    for note in (*data.notes, *reference.doubts(accuracy, usual)):
        print(note)
    return Exit.PASS
