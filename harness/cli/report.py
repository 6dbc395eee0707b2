"""`harness report`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli import flags
from harness.core.errors import Exit

if TYPE_CHECKING:
    from harness.output.formats.runs import Runs

DOES = "show stored runs again, in another shape, several devices side by side"
EXAMPLE = "harness report runs/check.json --format html --out runs/check.html"
FORMATS = ("table", "markdown", "junit", "html", "json")


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "records", type=Path, nargs="+", metavar="RUN", help="records of harness check, or folders of them"
    )
    parser.add_argument("--format", choices=FORMATS, default="table", help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write to a file (default: standard output)")
    flags.add_policy(parser)


def run(options: argparse.Namespace) -> int:
    from harness.core.files import check_writable, write_atomic
    from harness.output.formats import runs

    render = _renderer(options.format)  # fails where the extra is missing, before the work
    if options.out:
        check_writable(options.out.parent)
    shown = render(runs.read(options.records, options.policy)).rstrip("\n")
    if options.out:
        write_atomic(options.out, f"{shown}\n".encode())
        print(f"written: {options.out}")
    else:
        print(shown)
    return Exit.PASS


def _renderer(shape: str) -> Callable[[Runs], str]:
    if shape == "html":
        from harness.output.report import check

        return check.page
    if shape == "table":
        from harness.output import terminal

        return terminal.tables
    from harness.output.formats import json_report, junit, markdown

    renderers: dict[str, Callable[[Runs], str]] = {
        "markdown": markdown.render,
        "junit": junit.render,
        "json": json_report.render,
    }
    return renderers[shape]
