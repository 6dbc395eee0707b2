"""Paired figures, by hand-countable examples."""

from __future__ import annotations

import numpy as np
import pytest

from harness.artifacts.outputs import dequantize
from harness.judge import parity

REFERENCE = np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.3, 0.3, 0.4], [0.6, 0.2, 0.2]])
LABELS = np.array([0, 1, 2, 1])


def test_an_identical_copy_agrees_everywhere() -> None:
    """No flips, no difference, the same accuracy."""
    same = parity.compare(REFERENCE.copy(), REFERENCE, LABELS)
    assert (same.accuracy, same.reference_accuracy, same.agreement) == (0.75, 0.75, 1.0)
    assert (same.flips, same.ties, same.max_probability_difference) == (0, 0, 0.0)


def test_flips_are_counted_whether_they_help_or_hurt() -> None:
    """One regression and one improvement: two flips at unchanged accuracy."""
    outputs = REFERENCE.copy()
    outputs[0] = [0.1, 0.8, 0.1]
    outputs[3] = [0.2, 0.6, 0.2]
    changed = parity.compare(outputs, REFERENCE, LABELS)
    assert (changed.accuracy, changed.flips, changed.agreement) == (0.75, 2, 0.5)
    assert changed.max_probability_difference == pytest.approx(0.8)


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
        (np.tile(REFERENCE[:1], (4, 1)), "constant: the same outputs"),
        (np.round(REFERENCE * 256) - 128, "not dequantized"),
        (REFERENCE * 2, "no probabilities"),
    ],
)
def test_outputs_that_cannot_be_compared_are_refused(outputs: np.ndarray, what: str) -> None:
    """NaN, infinity, constants, raw integers, another length or class count is an error before any figure."""
    with pytest.raises(ValueError, match=what):
        parity.compare(outputs, REFERENCE, LABELS)


def test_nothing_to_compare_is_refused() -> None:
    """No images are not 100 % agreement."""
    with pytest.raises(ValueError, match="nothing to compare"):
        parity.compare(np.empty((0, 3)), np.empty((0, 3)), np.empty(0, np.int64))


def test_stored_outputs_become_real_by_scale_and_zero_point() -> None:
    """int8 -128 and 127 at scale 1/256, zero point -128, are 0 and 255/256; scale 0 leaves floats."""
    raw = np.array([[-128, 127]], np.int8)
    np.testing.assert_allclose(dequantize(raw, 1 / 256, -128), [[0, 255 / 256]])
    np.testing.assert_allclose(dequantize(np.array([[0.25]], np.float32), 0.0, 0), [[0.25]])


def test_best_and_worst_case_of_a_tie() -> None:
    """An int8 tie between the right and a wrong class is a flip at worst and none at best; a shared tie is none."""
    outputs = REFERENCE.copy()
    outputs[1] = [0.5, 0.5, 0.0]
    tied = parity.compare(outputs, REFERENCE, LABELS)
    assert (tied.flips_best, tied.flips, tied.flips_worst) == (0, 1, 1)
    assert (tied.accuracy_best, tied.accuracy, tied.accuracy_worst) == (0.75, 0.5, 0.5)
    changes = tied.changes
    assert (changes.regressions_best, changes.regressions, changes.regressions_worst) == (0, 1, 1)
    shared = parity.compare(outputs, outputs.copy(), LABELS)
    assert (shared.flips_worst, shared.changes.regressions_worst, shared.ties) == (0, 0, 1)


def test_class_by_class() -> None:
    """Recall, what was answered, and changes of each class; a class without images has no recall."""
    outputs = REFERENCE.copy()
    outputs[0] = [0.1, 0.8, 0.1]
    zero, one, two = parity.compare(outputs, REFERENCE, LABELS).classes
    assert (zero.images, zero.recall, zero.reference_recall, zero.changes.regressions) == (1, 0.0, 1.0, 1)
    assert (one.images, one.recall, one.reference_recall, one.answers, one.reference_answers) == (2, 0.5, 0.5, 2, 1)
    assert (two.recall, two.changes.regressions) == (1.0, 0)
    assert parity.compare(outputs, REFERENCE, np.zeros(4, np.int64)).classes[2].recall is None


def test_log_loss_and_divergence_by_hand() -> None:
    """The logarithm of the label's probability, and of halves instead of certainty a divergence of ln 2."""
    reference = np.array([[0.9, 0.1], [0.9, 0.1]])
    same = parity.compare(reference, reference, np.array([0, 1]))
    assert (same.log_loss, same.reference_log_loss) == pytest.approx((-np.log([0.9, 0.1]).mean(),) * 2)
    assert same.divergence == 0
    certain, halves = np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]])
    assert parity.compare(halves, certain, np.array([0])).divergence == pytest.approx(np.log(2), abs=0.02)


def test_a_far_image_counts_up_to_the_cap() -> None:
    """Differences of 0.8 and 0 at a cap of 0.5: one far image, a capped mean of 0.25; the log loss likewise."""
    reference = np.array([[0.9, 0.1], [0.9, 0.1]])
    outputs = np.array([[0.1, 0.9], [0.9, 0.1]])
    capped = parity.compare(outputs, reference, np.array([0, 0]), cap=0.5)
    assert (capped.far, capped.cap) == (1, 0.5)
    assert capped.mean_probability_difference == pytest.approx(0.4)
    assert capped.capped_probability_difference == parity.Mean(0.25, 0.125)
    assert capped.capped_log_loss_rise == parity.Mean(0.25, 0.125)
    better = parity.compare(outputs, reference, np.array([1, 1]), cap=0.5)
    assert better.capped_log_loss_rise == parity.Mean(-0.25, 0.125)


def spread(classes: int, top: float) -> np.ndarray:
    """Probabilities of four images: `top` for the label, the rest evenly over the other classes."""
    values = np.full((4, classes), (1 - top) / (classes - 1))
    values[np.arange(4), np.arange(4) % classes] = top
    return values


@pytest.mark.parametrize("classes", [2, 11, 300, 461, 500, 512, 1000, 3000])
@pytest.mark.parametrize("top", [0.9, 0.01])
def test_doubled_probabilities_are_refused_whatever_the_classes(classes: int, top: float) -> None:
    """A wrong scale: every image's outputs add up to 2, or to 4."""
    reference = spread(classes, max(top, 1.5 / classes))
    for outputs in (reference * 2, reference * 4):
        with pytest.raises(ValueError, match="adding up to"):
            parity.compare(outputs, reference, np.arange(4) % classes)


@pytest.mark.parametrize("classes", [2, 300, 461, 490, 513, 1000, 3000])
@pytest.mark.parametrize("top", [0.9, 0.3, 0.01])
def test_int8_probabilities_may_lose_or_gain_by_rounding(classes: int, top: float) -> None:
    """256 steps: with 1,000 even classes all but the label's are rounded to 0, with 461 up to a whole step each."""
    reference = spread(classes, max(top, 1.5 / classes))
    outputs = np.floor(reference * 256 + 0.5) / 256
    compared = parity.compare(np.minimum(outputs, 255 / 256), reference, np.arange(4) % classes)
    assert compared.images == 4


def test_half_the_probability_is_refused_where_the_reference_is_sure() -> None:
    """1,000 classes and 0.95 for the label: rounding cannot lose half of it."""
    reference = spread(1000, 0.95)
    with pytest.raises(ValueError, match="adding up to"):
        parity.compare(reference / 2, reference, np.arange(4))
