"""`harness doctor`."""

from __future__ import annotations

import argparse

from harness.core.errors import Exit

DOES = "say what on this machine would disturb latency, and what to change first"
EXAMPLE = "harness doctor && harness check"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """None: it looks at the machine for a second."""


def run(options: argparse.Namespace) -> int:
    from harness.tools import doctor

    found = doctor.examine()
    for place, advice in enumerate((advice for advice in found if advice.todo), start=1):
        print(f"{place}. {advice.seen}\n   {advice.todo}")
    for advice in found:
        if not advice.todo:
            print(f"note: {advice.seen}")
    todo = any(advice.todo for advice in found)
    print("change these from the top, and ask again" if todo else "nothing to change")
    return Exit.INCONCLUSIVE if todo else Exit.PASS
