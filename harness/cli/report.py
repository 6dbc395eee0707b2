"""`harness report`."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli import flags
from harness.core.errors import Exit

EXAMPLE = "harness report runs/check.json --html runs/check.html"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "records", type=Path, nargs="+", metavar="RUN", help="records of harness check, or folders of them"
    )
    parser.add_argument("--flips", action="store_true", help="list the images whose prediction changed")
    parser.add_argument(
        "--prefer",
        choices=("fastest", "smallest", "least-changed"),
        default="fastest",
        help="which variant to recommend, of those that pass (default: %(default)s)",
    )
    flags.add(parser, *flags.POLICY, "--html", "--json")
    for name, text in (("markdown", "a comment for a pull request"), ("junit", "XML for CI, a test case per check")):
        parser.add_argument(f"--{name}", type=Path, metavar="FILE", help=f"{text}; - for standard output")


def run(options: argparse.Namespace) -> int:
    from harness.output import terminal
    from harness.output.files import Outputs
    from harness.output.formats import runs

    formats = {"markdown": options.markdown, "junit": options.junit, "json_report": options.json}
    outputs = Outputs({"report.check": options.html, **{f"formats.{name}": path for name, path in formats.items()}})
    stored = runs.read(options.records, options.policy, options.prefer)
    outputs.show(terminal.flips(stored) if options.flips else terminal.tables(stored))
    outputs.write(stored)
    return Exit.PASS
