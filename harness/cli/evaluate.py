"""`harness evaluate`."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli import flags
from harness.core.errors import Exit

EXAMPLE = "harness evaluate models/tflite/int8.tflite --html runs/int8.html"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="a .keras or .tflite file")
    flags.add(parser, *flags.IMAGES, "--models", "--model-config", "--import", "--html", "--json")


def run(options: argparse.Namespace) -> int:
    from harness.output import terminal
    from harness.output.files import Outputs
    from harness.tools.evaluate import evaluate

    outputs = Outputs({"report.evaluation": options.html, "formats.plain_json": options.json})
    with terminal.Bars() as bars:
        evaluation = evaluate(
            options.model,
            options.data,
            options.models,
            terminal.step,
            bars,
            config=options.model_config,
            imports=options.imports,
            skip_bad=options.skip_bad,
        )
    outputs.show(terminal.evaluation(evaluation))
    outputs.write(evaluation)
    return Exit.PASS
