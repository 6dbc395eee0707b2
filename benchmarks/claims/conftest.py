"""What this project claims of its speed: each claim prints its figure, its target, the processor, and met or missed.

A missed target fails nothing: another processor is another one. docs/claims.md keeps the last figures of each.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.core import cores
from harness.run import worker

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "claims.md"
HEADING = """# Claims

What this project claims of its speed, and the last figures of each processor: written by `tox -e claims`. Each is a
ratio or a share measured in one run, both sides in turn. A missed target is a finding, not a failure.
"""
TABLE = "| claim | target | measured | | date |\n|---|---|---|---|---|\n"
ROWS = pytest.StashKey[dict[str, str]]()

Claim = Callable[..., None]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = {}


@pytest.fixture
def claim(benchmark: BenchmarkFixture, pytestconfig: pytest.Config) -> Claim:
    """claim(what, figure, at_most=..., at_least=..., others=...): says whether it is met, here and in the document."""

    def state(
        what: str, figure: float, *, at_most: float | None = None, at_least: float | None = None, **others: object
    ) -> None:
        met = (at_most is None or figure <= at_most) and (at_least is None or figure >= at_least)
        limits = {"at least": at_least, "at most": at_most}
        target = ", ".join(f"{word} {limit:g}" for word, limit in limits.items() if limit is not None)
        outcome = "met" if met else "missed"
        claims = benchmark.extra_info.setdefault("claims", {})
        claims[what] = {"figure": figure, "at_most": at_most, "at_least": at_least, "outcome": outcome}
        benchmark.extra_info |= {**others, **worker.machine()}
        today = datetime.datetime.now(datetime.UTC).date()
        rows = pytestconfig.stash[ROWS]
        rows[what] = f"| {what} | {target} | {figure:.3g} | {outcome} | {today} |"
        before = DOCUMENT.read_text() if DOCUMENT.exists() else HEADING
        DOCUMENT.write_text(updated(before, _processor(), rows))  # at once: a run takes long, and may be ended

    return state


def _processor() -> str:
    return f"{worker.processor()}, {cores.usable()} cores"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash[ROWS]
    if not rows:
        return
    terminalreporter.section(f"claims on {_processor()}")
    for row in rows.values():
        what, target, figure, outcome, _ = (part.strip() for part in row.strip("|").split("|"))
        terminalreporter.write_line(f"{outcome:6}  {figure:>8}  ({target})  {what}")


def updated(document: str, processor: str, rows: dict[str, str]) -> str:
    """The document with these rows in the processor's table, in the place of older ones of the same claims."""
    sections = dict(re.findall(r"(?ms)^## (.+?)\n+(.*?)(?=^## |\Z)", document))
    known = {line.split("|")[1].strip(): line for line in sections.get(processor, "").splitlines()[2:] if line}
    sections[processor] = TABLE + "".join(f"{row}\n" for row in (known | rows).values())
    return HEADING + "".join(f"\n## {name}\n\n{table.strip()}\n" for name, table in sections.items())
