"""`harness predict`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness.cli import flags
from harness.core.errors import Exit, SetupError

DOES = "say what a Keras or TFLite model sees in pictures"
EXAMPLE = "harness predict data/test/7_1.jpg --model models/tflite/int8.tflite --top 3"
STANDARD_OUTPUT = Path("-")


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files, or folders of them")
    parser.add_argument(
        "--model",
        type=Path,
        default=flags.MODELS / "int8.tflite",
        metavar="FILE",
        help="a .keras or .tflite file (default: %(default)s)",
    )
    parser.add_argument(
        "--top", type=int, default=1, metavar="N", help="classes shown of each, likeliest first (default: %(default)s)"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="the answers; - is standard output, without the table"
    )
    flags.add_models(parser, "knows a Keras model's class names and pixels, where it was converted")
    flags.add_config(parser)
    flags.add_import(parser)


def run(options: argparse.Namespace) -> int:
    import json

    from harness.core.files import write_atomic
    from harness.output import terminal
    from harness.tools import classifier
    from harness.tools.predict import predict

    if options.top < 1:
        raise SetupError(f"--top {options.top}: expected at least 1")
    model = classifier.open_model(options.model, options.models, config=options.model_config, imports=options.imports)
    with terminal.Bars() as bars:
        done = predict(model, options.images, options.top, bars)
    shown = json.dumps(done.to_json(), indent=2) + "\n"
    if options.json == STANDARD_OUTPUT:
        print(shown, end="")
    else:
        print(terminal.predictions(done))
        if options.json:
            write_atomic(options.json, shown.encode())
    for problem in done.problems:
        print(f"harness predict: {problem}", file=sys.stderr)
    return Exit.SETUP if done.problems else Exit.PASS
