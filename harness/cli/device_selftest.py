"""`harness device selftest`, or `harness selftest`."""

from __future__ import annotations

import argparse

from harness.cli import flags

EXAMPLE = "harness device selftest"


def add_flags(parser: argparse.ArgumentParser) -> None:
    flags.add(parser, "--models", "--reference", *flags.IMAGES, *flags.POLICY)


def run(options: argparse.Namespace) -> int:
    from harness.core.outcome import EXIT_CODES
    from harness.judge import policy
    from harness.output import terminal
    from harness.tools import selftest

    limits = policy.load(options.policy)
    where = options.models, options.reference, options.data
    cases = selftest.run(*where, limits, terminal.step, skip_bad=options.skip_bad)
    print(terminal.cases(cases))
    return EXIT_CODES[selftest.outcome(cases)]
