"""The three answers, and intervals that they rest on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from harness.core.errors import Exit


@dataclass(frozen=True)
class Interval:
    """Shares of 1; the truth is outside on either side with probability alpha at most."""

    low: float
    high: float


class Outcome(StrEnum):
    """The three answers."""

    PASS = "PASS"
    INCONCLUSIVE = "INCONCLUSIVE"
    FAIL = "FAIL"


SEVERITY = [Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.FAIL]


EXIT_CODES = {Outcome.PASS: Exit.PASS, Outcome.INCONCLUSIVE: Exit.INCONCLUSIVE, Outcome.FAIL: Exit.FAIL}


@dataclass(frozen=True)
class Verdict:
    """An outcome and why; a PASS says what it rests on."""

    outcome: Outcome
    reasons: tuple[str, ...]


def overall(verdicts: Iterable[Verdict]) -> Outcome:
    """The worst outcome; of no verdict at all, FAIL: nothing was shown."""
    return max((verdict.outcome for verdict in verdicts), key=SEVERITY.index, default=Outcome.FAIL)


def within(interval: Interval, limit: float) -> Outcome:
    """PASS: all of it is; FAIL: none of it."""
    if interval.high <= limit:
        return Outcome.PASS
    return Outcome.FAIL if interval.low > limit else Outcome.INCONCLUSIVE
