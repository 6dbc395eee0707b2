"""The `harness` command: a module for each verb. Errors are one line and a documented exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from harness.core.errors import Exit, SetupError

VERBS = (
    "convert",
    "inspect",
    "reference",
    "check",
    "doctor",
    "benchmark",
    "verdict",
    "report",
    "compare",
    "flips",
    "explain",
    "profile",
    "evaluate",
    "predict",
    "devices",
    "virtual",
    "pack",
    "selftest",
    "policy",
    "fleet",
    "lab",
    "completion",
)
EXIT_CODES = "exit codes: 0 PASS, 1 FAIL, 2 usage or set-up error, 3 INCONCLUSIVE, 130 interrupted"


def parser() -> argparse.ArgumentParser:
    """All verbs and flags."""
    top = argparse.ArgumentParser(
        prog="harness",
        epilog=f"{EXIT_CODES}. Each verb has its own --help with an example.",
        description="Prove or refute that TFLite variants answer like the Keras model they were made from.",
    )
    top.add_argument("--version", action=_Version, nargs=0, help="say the version, and those of the runtimes")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name in VERBS:
        module = import_module(f"harness.cli.{name}")
        verb = verbs.add_parser(
            name,
            help=module.DOES,
            description=f"{module.DOES[0].upper()}{module.DOES[1:]}.",
            epilog=f"example: {module.EXAMPLE}; {EXIT_CODES}",
        )
        module.add_flags(verb)
        verb.add_argument(
            "-v", "--verbose", action="store_true", help="also say each step when piped, and where an error comes from"
        )
        verb.set_defaults(run=module.run)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; its exit code."""
    options = parser().parse_args(arguments)
    if options.verbose:
        from harness.output.terminal import progress

        progress.verbose = True
    try:
        code: int = options.run(options)
    except SetupError as error:
        if options.verbose:
            import traceback

            traceback.print_exc()
        print(f"harness {options.verb}: {error}", file=sys.stderr)
        return Exit.SETUP
    except BrokenPipeError:  # the reader of standard output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.SETUP
    except KeyboardInterrupt:
        print(f"\nharness {options.verb}: interrupted; nothing half-written is left", file=sys.stderr)
        return Exit.INTERRUPTED
    return code


class _Version(argparse.Action):
    """Looked up only when asked for: it takes longer than all the rest of --help."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from harness.tools import versions

        print(versions.text())
        parser.exit()
