"""PASS, FAIL or INCONCLUSIVE, each with its reasons."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from harness.errors import Exit
from harness.parity import Parity

LARGEST_DROP = 0.01  # of accuracy, for a quantized variant
FEWEST_IMAGES = 100  # with fewer, one image is more than LARGEST_DROP


class Outcome(StrEnum):
    """The three answers, worst last when ordered by severity."""

    PASS = "PASS"
    INCONCLUSIVE = "INCONCLUSIVE"
    FAIL = "FAIL"


_SEVERITY = [Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.FAIL]
EXIT_CODES = {Outcome.PASS: Exit.PASS, Outcome.INCONCLUSIVE: Exit.INCONCLUSIVE, Outcome.FAIL: Exit.FAIL}


@dataclass(frozen=True)
class Verdict:
    """An outcome and why; a PASS says what it rests on."""

    outcome: Outcome
    reasons: tuple[str, ...]


def judge(kind: str, parity: Parity) -> Verdict:
    """A variant's verdict: float32 must not flip at all, the others stay within a point of the reference."""
    if kind == "float32":
        what = f"{parity.flips} of {parity.images} answers differ from the reference"
        failed = parity.flips > 0
    else:
        drop = parity.reference_accuracy - parity.accuracy_worst
        side = "below" if drop >= 0 else "above"
        what = f"accuracy {abs(drop) * 100:.2f} points {side} the reference, {LARGEST_DROP * 100:.2f} below allowed"
        failed = drop > LARGEST_DROP
    if failed:
        return Verdict(Outcome.FAIL, (what,))
    if parity.images < FEWEST_IMAGES:
        few = f"{parity.images} images cannot tell a drop of {LARGEST_DROP:.0%}; test at least {FEWEST_IMAGES}"
        return Verdict(Outcome.INCONCLUSIVE, (what, few))
    return Verdict(Outcome.PASS, (what,))


def overall(verdicts: Iterable[Verdict]) -> Outcome:
    """The worst outcome; of no verdict at all, FAIL: nothing was shown."""
    return max((verdict.outcome for verdict in verdicts), key=_SEVERITY.index, default=Outcome.FAIL)
