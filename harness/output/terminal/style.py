"""Tables, colours and line width: by rich for a person at a terminal, plain by tabulate where output is piped.

NO_COLOR (no-color.org) and TERM=dumb turn colours off.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence

from harness.core.outcome import Outcome

_SGR = {Outcome.PASS: "1;32", Outcome.INCONCLUSIVE: "1;33", Outcome.FAIL: "1;31"}
_ESCAPES = re.compile(r"\x1b\[[\d;]*m")
GAP = 2  # between columns
NO_BREAK = "\N{NO-BREAK SPACE}"
HANGING = "    "  # indents the lines that continue a sentence


def coloured(outcome: Outcome) -> str:
    """The outcome's name, in green, yellow or red at a terminal."""
    return f"\x1b[{_SGR[outcome]}m{outcome}\x1b[0m" if _has_colours() else str(outcome)


def grid(rows: Sequence[Sequence[str]], headers: Sequence[str], left: int = 1) -> str:
    """A table without its columns of dashes, the first ones flush left. One paragraph a row if it is too wide."""
    shown = [place for place in range(len(headers)) if not rows or any(row[place] != "-" for row in rows)]
    headers, rows = [headers[place] for place in shown], [[row[place] for place in shown] for row in rows]
    if not sys.stdout.isatty():
        from tabulate import tabulate

        align = ("left",) * left + ("right",) * (len(headers) - left)
        return tabulate(rows, headers, tablefmt="simple", disable_numparse=True, colalign=align)
    widths = [max(map(_width, column)) for column in zip(headers, *rows, strict=True)]
    if sum(widths) + GAP * (len(widths) - 1) > _columns():
        return "\n".join(_paragraph(row, headers, left) for row in rows)
    return _table(rows, headers, left)


def fit(text: str) -> str:
    """Break lines that are wider than the terminal between words, and indent what continues a line."""
    if not sys.stdout.isatty():
        return text
    return "\n".join(line if _width(line) <= _columns() else _wrapped(line) for line in text.split("\n"))


def _table(rows: Sequence[Sequence[str]], headers: Sequence[str], left: int) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for place, header in enumerate(headers):
        table.add_column(header, justify="left" if place < left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text.from_ansi, row))
    console = Console(width=_columns(), color_system="standard" if _has_colours() else None, highlight=False)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().rstrip("\n").split("\n"))


def _paragraph(row: Sequence[str], headers: Sequence[str], left: int) -> str:
    """One row: what names it, then its figures, each after its header and on one line with it."""
    pairs = [(header, cell) for header, cell in zip(headers[left:], row[left:], strict=True) if cell != "-"]
    figures = ", ".join(f"{header} {cell}".replace(" ", NO_BREAK) for header, cell in pairs)
    lines = ["  ".join(row[:left]), *([f"  {figures}"] if figures else [])]
    return "\n".join(_wrapped(line) for line in lines).replace(NO_BREAK, " ")


def _wrapped(line: str) -> str:
    indent = re.match(" *", line)
    continued = (indent[0] if indent else "") + HANGING
    width = _columns() + len(line) - _width(line)
    return textwrap.fill(line, width, subsequent_indent=continued, break_long_words=False, break_on_hyphens=False)


def _columns() -> int:
    return shutil.get_terminal_size().columns


def _width(text: str) -> int:
    return len(_ESCAPES.sub("", text))


def _has_colours() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
