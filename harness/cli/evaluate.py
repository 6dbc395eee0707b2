"""`harness evaluate`."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli import flags
from harness.errors import Exit, SetupError

DOES = "say how often a Keras or TFLite model is right, and show where not"
EXAMPLE = "harness evaluate models/tflite/int8.tflite --html runs/int8.html"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="a .keras or .tflite file")
    parser.add_argument("--html", type=Path, metavar="FILE", help="a page with pictures, all in one file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures and every miss")
    flags.add_models(parser, "keeps a Keras model's outputs")
    parser.add_argument(
        "--classes", type=int, default=11, metavar="N", help="classes of model and images (default: %(default)s)"
    )
    parser.add_argument(
        "--image-size", type=int, default=28, metavar="N", help="the model's, in pixels (default: %(default)s)"
    )
    flags.add_data(parser)


def run(options: argparse.Namespace) -> int:
    import json

    from harness import terminal
    from harness.evaluate import KERAS, evaluate
    from harness.files import check_writable, write_atomic

    if options.classes < 2 or options.image_size < 1:
        given = f"--classes {options.classes} --image-size {options.image_size}"
        raise SetupError(f"{given}: expected at least 2 classes and 1 pixel")
    for file in filter(None, (options.html, options.json)):
        check_writable(file.parent)
    if options.model.suffix == KERAS:
        check_writable(options.models)
    if options.html:
        from harness.report import evaluation as page  # fails here where the extra is missing, before the work
    with terminal.Bars() as bars:
        done = evaluate(
            options.model,
            options.data,
            options.models,
            terminal.step,
            bars,
            classes=options.classes,
            image_size=options.image_size,
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
