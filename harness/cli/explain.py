"""`harness explain`."""

from __future__ import annotations

import argparse

from harness.cli import flags
from harness.core.errors import Exit

EXAMPLE = "harness explain int8"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", metavar="VARIANT", help="a variant of the folder; with --time also a .tflite file")
    result = parser.add_mutually_exclusive_group()
    result.add_argument("--time", action="store_true", help="show where its time goes, and the least it could take")
    flags.add(result, "--html")
    flags.add(parser, "--layers", "--models", *flags.IMAGES, "--images")


def run(options: argparse.Namespace) -> int:
    from harness.output import terminal
    from harness.output.files import Outputs
    from harness.tools import explain, op_profile

    source = options.models, options.kind, options.data, options.images
    if options.time:
        with terminal.step(f"profiling {options.kind}"):
            profile = op_profile.variant(*source, skip_bad=options.skip_bad)
        print(terminal.profile(profile, options.layers))
        return Exit.PASS
    outputs = Outputs({"report.explanation": options.html})
    with terminal.Bars() as bars:
        explanation = explain.variant(*source, bars, skip_bad=options.skip_bad)
    print(terminal.explanation(explanation, options.layers))
    outputs.write(explanation)
    return Exit.PASS
