"""`harness predict`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness.cli import flags
from harness.core.errors import Exit

EXAMPLE = "harness predict data/test/7_1.jpg --model models/tflite/int8.tflite --top 3"


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
        "--top",
        type=flags.count(),
        default=1,
        metavar="N",
        help="classes shown for each image, most likely first (default: %(default)s)",
    )
    flags.add(parser, "--models", "--model-config", "--import", "--json")


def run(options: argparse.Namespace) -> int:
    from harness.output import terminal
    from harness.output.files import Outputs
    from harness.tools import classifier
    from harness.tools.predict import predict

    outputs = Outputs({"formats.plain_json": options.json})
    model = classifier.open_model(options.model, options.models, config=options.model_config, imports=options.imports)
    with terminal.Bars() as bars:
        predictions = predict(model, options.images, options.top, bars)
    outputs.show(terminal.predictions(predictions))
    outputs.write(predictions)
    for problem in predictions.problems:
        print(f"harness predict: {problem}", file=sys.stderr)
    return Exit.SETUP if predictions.problems else Exit.PASS
