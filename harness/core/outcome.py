"""The outcomes of a judgement, and the intervals that they rest on."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from harness.core.errors import Exit
from harness.core.shapes import Shape


class Interval(Shape):
    """A confidence interval: the true value is below it, and above it, with a probability of at most alpha each."""

    low: float
    high: float


class Outcome(StrEnum):
    """INCONCLUSIVE is no PASS: more images, or a quieter machine, would decide."""

    PASS = "PASS"
    INCONCLUSIVE = "INCONCLUSIVE"
    FAIL = "FAIL"


SEVERITY = [Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.FAIL]


EXIT_CODES = {Outcome.PASS: Exit.PASS, Outcome.INCONCLUSIVE: Exit.INCONCLUSIVE, Outcome.FAIL: Exit.FAIL}


class Verdict(Shape):
    """An outcome and the reasons for it; those of a PASS say what it rests on."""

    outcome: Outcome
    reasons: tuple[str, ...]


def overall(verdicts: Iterable[Verdict]) -> Outcome:
    """The worst outcome; FAIL if there is no verdict at all, because nothing was shown."""
    return max((verdict.outcome for verdict in verdicts), key=SEVERITY.index, default=Outcome.FAIL)


def within(interval: Interval, limit: float) -> Outcome:
    """PASS if all of the interval is within the limit, FAIL if none of it is."""
    if interval.high <= limit:
        return Outcome.PASS
    return Outcome.FAIL if interval.low > limit else Outcome.INCONCLUSIVE
