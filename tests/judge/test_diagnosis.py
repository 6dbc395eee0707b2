"""The patterns that name a mistake, and where along the chain it was made."""

from __future__ import annotations

import json

import numpy as np
import pytest

from harness.core.cell import Cell
from harness.core.outcome import Outcome
from harness.judge import diagnosis, policy, predictions, tally
from harness.judge.predictions import Predictions

IMAGES, CLASSES = 2200, 11
LABELS = np.arange(IMAGES) % CLASSES


def sure(answers: np.ndarray) -> np.ndarray:
    values = np.full((len(answers), CLASSES), 0.005)
    values[np.arange(len(answers)), answers] = 0.95
    return values


def judged(outputs: np.ndarray) -> predictions.Judged:
    return predictions.judge(
        Cell("int8"), Predictions(LABELS, sure(LABELS), None, {Cell("int8"): outputs}), policy.load()
    )


def test_two_images_with_each_others_outputs_fail_though_two_of_2200_are_few() -> None:
    """It is no matter of shares: answers got mixed up."""
    outputs = sure(LABELS)
    outputs[[7, 100]] = outputs[[100, 7]]
    verdict = judged(outputs).verdict
    assert verdict.outcome is Outcome.FAIL
    assert verdict.reasons == ("images 7 and 100 (counted from 0) have each other's outputs: swapped",)


@pytest.mark.parametrize("wrong", [1, 3, 4])
def test_a_few_confident_mistakes_are_no_swap(wrong: int) -> None:
    """Neither if two of them happen to be the other's class while others are not."""
    answers = LABELS.copy()
    answers[[7, 8]] = answers[[8, 7]]
    for image in range(20, 18 + wrong):
        answers[image] = (answers[image] + 3) % CLASSES
    if wrong == 1:
        answers[8] = 8
    assert judged(sure(answers)).verdict.outcome is Outcome.PASS


def test_renamed_classes_are_named() -> None:
    """All of one class answered as another, or every class as the next."""
    collapsed = np.where(LABELS == 4, 5, LABELS)
    assert "classes renamed or collapsed: 4 answered as 5" in judged(sure(collapsed)).verdict.reasons
    shifted = judged(sure((LABELS + 1) % CLASSES)).verdict.reasons
    assert "classes shifted: 11 classes are answered with the class 1 further on" in shifted


def test_too_many_far_images_to_keep_are_not_called_swapped() -> None:
    """Twenty are kept: what the others are is not known."""
    answers = LABELS.copy()
    answers[:22] = answers[:22].reshape(-1, 2)[:, ::-1].ravel()
    assert not list(diagnosis.swaps(tally.count(sure(answers), sure(LABELS), LABELS)))


def test_an_accelerators_stage_comes_after_the_variants_own() -> None:
    """What is lost on the GPU is not blamed on quantization."""
    gpu = sure(LABELS)
    gpu[:50] = np.roll(gpu[:50], 1, axis=1)
    cells = {Cell("float32"): sure(LABELS), Cell("int8"): sure(LABELS), Cell("int8", "gpu"): gpu}
    diffs = predictions.judge(Cell("int8", "gpu"), Predictions(LABELS, sure(LABELS), None, cells), policy.load()).stages
    assert [(diff.source, diff.target, diff.flips) for diff in diffs] == [
        ("Keras", "float32", 0),
        ("float32", "int8", 0),
        ("int8", "int8@gpu", 50),
    ]


def test_labels_in_another_order_are_recognized() -> None:
    """Text order, reversed, shifted, any other order: each with the line to paste. None if no order fits better."""
    names = tuple(map(str, range(12)))
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 12, 240)
    text = sorted(names)
    orders = {
        "text order": [text.index(name) for name in names],
        "the reverse order": list(range(12))[::-1],
        "shifted by 1": [(label + 1) % 12 for label in range(12)],
        "an order of its own": rng.permutation(12).tolist(),
    }
    for what, order in orders.items():
        answers = np.where(rng.random(240) < 0.1, rng.integers(0, 12, 240), np.array(order)[labels])
        line = diagnosis.reordered(confusion_of(labels, answers), names)
        assert line
        assert what in line
        trained = [names[order.index(output)] for output in range(12)]
        assert line.endswith(f"class_names = {json.dumps(trained)}")
    assert diagnosis.reordered(confusion_of(labels, labels), names) is None
    assert diagnosis.reordered(confusion_of(labels, rng.integers(0, 12, 240)), names) is None
    assert diagnosis.reordered(confusion_of(labels[:12], (labels[:12] + 1) % 12), names) is None  # too few to tell


def confusion_of(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    return np.bincount(labels * 12 + answers, minlength=144).reshape(12, 12)
