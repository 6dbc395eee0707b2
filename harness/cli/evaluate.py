"""`harness evaluate`."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli import flags
from harness.core.errors import Exit

DOES = "say how often a Keras or TFLite model is right, and show where not"
EXAMPLE = "harness evaluate models/tflite/int8.tflite --html runs/int8.html"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="a .keras or .tflite file")
    parser.add_argument("--html", type=Path, metavar="FILE", help="a page with pictures, all in one file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures and every miss")
    flags.add_models(parser, "keeps a Keras model's outputs")
    flags.add_data(parser)
    flags.add_config(parser)
    flags.add_import(parser)


def run(options: argparse.Namespace) -> int:
    import json

    from harness.core.files import check_writable, write_atomic
    from harness.output import terminal
    from harness.tools.classifier import TFLITE
    from harness.tools.evaluate import evaluate

    for file in filter(None, (options.html, options.json)):
        check_writable(file.parent)
    if options.model.suffix != TFLITE:
        check_writable(options.models)
    if options.html:
        from harness.output.report import evaluation as page  # fails here where the extra is missing, before the work
    with terminal.Bars() as bars:
        done = evaluate(
            options.model,
            options.data,
            options.models,
            terminal.step,
            bars,
            config=options.model_config,
            imports=options.imports,
            skip_bad=options.skip_bad,
        )
    try:
        if options.json:
            write_atomic(options.json, (json.dumps(done.to_json(), indent=2, allow_nan=False) + "\n").encode())
        if options.html:
            write_atomic(options.html, page.page(done).encode())
    finally:  # what was found is shown also where it cannot be stored
        print(terminal.evaluation(done))
    if written := [str(file) for file in (options.json, options.html) if file]:
        print(f"written: {', '.join(written)}")
    return Exit.PASS
