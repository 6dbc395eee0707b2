"""Tables, and colour where a person is reading: not when piped, and never with NO_COLOR set (no-color.org)."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from tabulate import tabulate

from harness.core.outcome import Outcome

_SGR = {Outcome.PASS: "1;32", Outcome.INCONCLUSIVE: "1;33", Outcome.FAIL: "1;31"}


def coloured(outcome: Outcome) -> str:
    """The outcome's name, green, yellow or red."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty():
        return str(outcome)
    return f"\x1b[{_SGR[outcome]}m{outcome}\x1b[0m"


def grid(rows: Sequence[Sequence[str]], headers: Sequence[str], left: int = 1) -> str:
    """A table whose first columns are flush left, the others right."""
    align = ("left",) * left + ("right",) * (len(headers) - left)
    return tabulate(rows, headers, tablefmt="simple", disable_numparse=True, colalign=align)
