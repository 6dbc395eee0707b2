"""`harness explain`."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli import device_profile, flags
from harness.core.cell import NATIVE
from harness.core.errors import Exit, SetupError, nearest

EXAMPLE = "harness explain int8"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", metavar="VARIANT", help="a variant of the folder; with --time also a .tflite file")
    result = parser.add_mutually_exclusive_group()
    result.add_argument("--time", action="store_true", help="as harness profile: where its time goes")
    result.add_argument(
        "--accelerator",
        type=flags.accelerator,
        metavar="NAME",
        help="name the operation that this accelerator computes differently from the CPU, and write it as a small "
        f"file: {', '.join(NATIVE[1:])}",
    )
    flags.add(result, "--html")
    flags.add(parser, "--layers", "--models", *flags.IMAGES, "--images")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/case"),
        metavar="DIR",
        help="with --accelerator: the folder for that file, its input and a script (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> int:
    from harness.output import terminal
    from harness.output.files import Outputs
    from harness.tools import explain, explain_accelerator

    source = options.models, options.kind, options.data, options.images
    if options.time:
        return device_profile.show(options)
    if options.accelerator == "cpu":
        raise SetupError(f"--accelerator cpu: is what the others are compared with; {nearest('', NATIVE[1:])}")
    if options.accelerator:
        with terminal.Bars() as bars:
            finding = explain_accelerator.variant(
                *source, options.accelerator, options.out, bars, skip_bad=options.skip_bad
            )
        print(terminal.finding(finding, options.kind, options.out))
        return Exit.PASS
    outputs = Outputs({"report.explanation": options.html})
    with terminal.Bars() as bars:
        explanation = explain.variant(*source, bars, skip_bad=options.skip_bad)
    print(terminal.explanation(explanation, options.layers))
    outputs.write(explanation)
    return Exit.PASS
