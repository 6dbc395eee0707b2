"""Precision, recall, F1 and the confusion matrix, against figures counted by hand and by definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.tools.metrics import score


def outputs(answers: list[int], classes: int) -> np.ndarray:
    """Outputs whose largest is the answer."""
    return np.eye(classes)[answers]


def test_figures_counted_by_hand() -> None:
    """Two of class 0's three images read rightly, one as 1; class 2 has no image but is answered once."""
    scores = score(outputs([0, 0, 1, 1, 2], 4), np.array([0, 0, 0, 1, 1]))
    assert scores.confusion.tolist() == [[2, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert (scores.images, scores.right, scores.accuracy) == (5, 3, 0.6)
    zero, one, two, three = scores.classes
    assert (zero.precision, zero.recall, zero.f1) == pytest.approx((1.0, 2 / 3, 0.8))
    assert (one.precision, one.recall, one.f1) == (0.5, 0.5, 0.5)
    assert (two.precision, two.recall, two.f1) == (0.0, None, 0.0)
    assert (three.precision, three.recall, three.f1) == (None, None, None)
    assert scores.confusions == [("0", "1", 1), ("1", "2", 1)]


def test_the_most_frequent_confusion_comes_first() -> None:
    """Pairs are ordered by their number, not by class."""
    scores = score(outputs([1, 0, 0, 0], 3), np.array([0, 2, 2, 1]))
    assert scores.confusions == [("2", "0", 2), ("0", "1", 1), ("1", "0", 1)]


def test_a_tie_counts_as_the_lower_class() -> None:
    """Two classes share the largest output: the lower is the answer, and the tie is counted."""
    scores = score(np.array([[0.5, 0.5, 0.0], [0.2, 0.2, 0.6]]), np.array([1, 2]))
    assert (scores.ties, scores.right) == (1, 1)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60))
def test_every_figure_is_its_definition(pairs: list[tuple[int, int]]) -> None:
    """For any labels and answers: shares recomputed from the pairs themselves."""
    scores = score(outputs([answer for _, answer in pairs], 5), np.array([label for label, _ in pairs]))
    assert scores.accuracy == sum(label == answer for label, answer in pairs) / len(pairs)
    for index, one in enumerate(scores.classes):
        right = sum(pair == (index, index) for pair in pairs)
        shown = sum(label == index for label, _ in pairs)
        answered = sum(answer == index for _, answer in pairs)
        assert one.recall == (right / shown if shown else None)
        assert one.precision == (right / answered if answered else None)
        if one.precision and one.recall:
            assert one.f1 == pytest.approx(2 * one.precision * one.recall / (one.precision + one.recall))


@pytest.mark.parametrize(
    ("answers", "labels", "said"),
    [
        (np.zeros((0, 3)), [], "no images"),
        (np.ones((2, 3)), [0], "do not pair"),
        (np.ones(2), [0, 1], "do not pair"),
        (np.ones((2, 3)), [0, 3], "3 classes"),
        (np.array([[0.1, np.nan], [0.5, 0.5]]), [0, 1], "NaN or infinite outputs on 1 of 2"),
        (np.array([[0.1, np.inf], [0.5, 0.5]]), [0, 1], "NaN or infinite outputs on 1 of 2"),
    ],
)
def test_what_cannot_be_scored_is_an_error(answers: np.ndarray, labels: list[int], said: str) -> None:
    """Nothing, unequal numbers, unknown labels, NaN: no figure is made of these."""
    with pytest.raises(ValueError, match=said):
        score(answers, np.array(labels, np.int64))
