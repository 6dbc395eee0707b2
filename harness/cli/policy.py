"""`harness policy`."""

from __future__ import annotations

import argparse

from harness.core.errors import Exit

DOES = "print the limits that variants are judged by"
EXAMPLE = "harness policy > my-policy.toml"


def add_flags(parser: argparse.ArgumentParser) -> None:
    del parser  # it has none


def run(options: argparse.Namespace) -> int:
    from harness.judge import policy

    print(policy.DEFAULTS.read_text(), end="")
    return Exit.PASS
