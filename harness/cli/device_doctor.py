"""`harness device doctor`."""

from __future__ import annotations

import argparse

EXAMPLE = "harness device doctor && harness check"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """None: it watches the machine for a second."""


def run(options: argparse.Namespace) -> int:
    from harness.core.outcome import EXIT_CODES
    from harness.output import terminal
    from harness.tools import doctor

    advice = doctor.examine()
    print(terminal.advice(advice))
    return EXIT_CODES[doctor.outcome(advice)]
