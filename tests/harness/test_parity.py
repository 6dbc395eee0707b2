"""Paired figures, by hand-countable examples."""

from __future__ import annotations

import numpy as np
import pytest

from harness import parity, verdict
from harness.parity import Parity
from harness.verdict import Outcome, Verdict

REFERENCE = np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.3, 0.3, 0.4], [0.6, 0.2, 0.2]])
LABELS = np.array([0, 1, 2, 1])


def test_an_identical_copy_agrees_everywhere() -> None:
    """No flips, no difference, the same accuracy."""
    same = parity.compare(REFERENCE.copy(), REFERENCE, LABELS)
    assert (same.accuracy, same.reference_accuracy, same.agreement) == (0.75, 0.75, 1.0)
    assert (same.flips, same.ties, same.largest_probability_difference) == (0, 0, 0.0)


def test_flips_are_counted_whether_they_help_or_hurt() -> None:
    """One answer broken and one mended: two flips at unchanged accuracy."""
    outputs = REFERENCE.copy()
    outputs[0] = [0.1, 0.8, 0.1]
    outputs[3] = [0.2, 0.6, 0.2]
    changed = parity.compare(outputs, REFERENCE, LABELS)
    assert (changed.accuracy, changed.flips, changed.agreement) == (0.75, 2, 0.5)
    assert changed.largest_probability_difference == pytest.approx(0.8)


def test_a_tie_counts_as_wrong_in_the_worst_case() -> None:
    """Two classes with the same largest output: right by luck only."""
    outputs = REFERENCE.copy()
    outputs[0] = [0.5, 0.5, 0.0]
    tied = parity.compare(outputs, REFERENCE, LABELS)
    assert (tied.ties, tied.accuracy, tied.accuracy_worst) == (1, 0.75, 0.5)


@pytest.mark.parametrize(
    ("outputs", "what"),
    [
        (np.full((4, 3), np.nan), "NaN or infinite outputs on 4 of 4"),
        (np.where(np.eye(4, 3) > 0, np.inf, 0.1), "NaN or infinite outputs on 3 of 4"),
        (REFERENCE[:3], "do not pair"),
        (REFERENCE[:, :2], "do not pair"),
    ],
)
def test_outputs_that_cannot_be_compared_are_refused(outputs: np.ndarray, what: str) -> None:
    """NaN, infinity, another length or class count is an error before any figure."""
    with pytest.raises(ValueError, match=what):
        parity.compare(outputs, REFERENCE, LABELS)


def test_nothing_to_compare_is_refused() -> None:
    """No images are not 100 % agreement."""
    with pytest.raises(ValueError, match="nothing to compare"):
        parity.compare(np.empty((0, 3)), np.empty((0, 3)), np.empty(0, np.int64))


def test_stored_outputs_become_real_by_scale_and_zero_point() -> None:
    """int8 -128 and 127 at scale 1/256, zero point -128, are 0 and 255/256; scale 0 leaves floats."""
    raw = np.array([[-128, 127]], np.int8)
    np.testing.assert_allclose(parity.dequantize(raw, 1 / 256, -128), [[0, 255 / 256]])
    np.testing.assert_allclose(parity.dequantize(np.array([[0.25]], np.float32), 0.0, 0), [[0.25]])


def figures(images: int = 1000, *, flips: int = 0, accuracy: float = 0.99, reference: float = 0.99) -> Parity:
    return Parity(images, accuracy, accuracy, reference, 1 - flips / images, flips, 0, 0.1)


@pytest.mark.parametrize(
    ("kind", "given", "outcome"),
    [
        ("float32", figures(), Outcome.PASS),
        ("float32", figures(flips=1), Outcome.FAIL),
        ("int8", figures(flips=5), Outcome.PASS),
        ("int8", figures(accuracy=0.9805), Outcome.PASS),
        ("int8", figures(accuracy=0.9795), Outcome.FAIL),
        ("dynamic_range", figures(accuracy=1.0), Outcome.PASS),
        ("int8", figures(images=99), Outcome.INCONCLUSIVE),
        ("int8", figures(images=99, accuracy=0.5), Outcome.FAIL),
    ],
)
def test_the_rules_of_judgement(kind: str, given: Parity, outcome: Outcome) -> None:
    """float32 may not flip; the others may lose one point; few images can refute but not prove."""
    judged = verdict.judge(kind, given)
    assert judged.outcome is outcome
    assert judged.reasons


def test_the_overall_outcome_is_the_worst() -> None:
    """FAIL outweighs INCONCLUSIVE outweighs PASS; nothing judged is a FAIL."""
    passed, unclear, failed = (
        Verdict(outcome, ("why",)) for outcome in (Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.FAIL)
    )
    assert verdict.overall([passed, passed]) is Outcome.PASS
    assert verdict.overall([passed, unclear]) is Outcome.INCONCLUSIVE
    assert verdict.overall([unclear, failed, passed]) is Outcome.FAIL
    assert verdict.overall([]) is Outcome.FAIL
