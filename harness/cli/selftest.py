"""`harness selftest`."""

from __future__ import annotations

import argparse

from harness.cli import flags

EXAMPLE = "harness selftest"


def add_flags(parser: argparse.ArgumentParser) -> None:
    flags.add(parser, "--models", "--reference", *flags.IMAGES)


def run(options: argparse.Namespace) -> int:
    from harness.core.outcome import EXIT_CODES
    from harness.output import terminal
    from harness.tools import selftest

    cases = selftest.run(options.models, options.reference, options.data, terminal.step, skip_bad=options.skip_bad)
    print(terminal.cases(cases))
    return EXIT_CODES[selftest.outcome(cases)]
