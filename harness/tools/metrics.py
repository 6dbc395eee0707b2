"""How well predictions fit labels: accuracy, the confusion matrix, and precision, recall and F1 of each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.images.spec import numbers


@dataclass(frozen=True)
class ClassScores:
    """One class. Shares are 0..1; None if the divisor is 0: no image of the class, or no prediction of it."""

    name: str
    images: int
    answers: int
    right: int

    @property
    def precision(self) -> float | None:
        """right / answers"""
        return self.right / self.answers if self.answers else None

    @property
    def recall(self) -> float | None:
        """right / images"""
        return self.right / self.images if self.images else None

    @property
    def f1(self) -> float | None:
        """2 right / (images + answers), the harmonic mean of precision and recall"""
        return 2 * self.right / (self.images + self.answers) if self.images or self.answers else None


@dataclass(frozen=True)
class Scores:
    """confusion: counts [truth, answer]. ties: images whose largest output two classes share; the lower one counts."""

    confusion: npt.NDArray[np.int64]
    ties: int
    class_names: tuple[str, ...]

    @property
    def images(self) -> int:
        return int(self.confusion.sum())

    @property
    def right(self) -> int:
        return int(self.confusion.trace())

    @property
    def accuracy(self) -> float:
        return self.right / self.images

    @property
    def classes(self) -> tuple[ClassScores, ...]:
        """Each class, in order."""
        counts = self.confusion.sum(axis=1), self.confusion.sum(axis=0), self.confusion.diagonal()
        return tuple(
            ClassScores(name, int(images), int(answers), int(right))
            for name, images, answers, right in zip(self.class_names, *counts, strict=True)
        )

    @property
    def confusions(self) -> list[tuple[str, str, int]]:
        """(truth, answer, images) of every pair that was confused, the most frequent first."""
        pairs = [(truth, answer) for truth, answer in np.argwhere(self.confusion) if truth != answer]
        names = self.class_names
        return sorted(((names[t], names[a], int(self.confusion[t, a])) for t, a in pairs), key=lambda pair: -pair[2])


def score(outputs: npt.NDArray[np.floating], labels: npt.NDArray[np.int64], class_names: Sequence[str] = ()) -> Scores:
    """Scores of outputs [N, classes] for labels [N]. class_names: numbers by default.

    Raises ValueError: no images, numbers that do not pair, a label beyond the classes, NaN or infinite outputs.
    """
    if outputs.ndim != 2 or len(outputs) != len(labels):
        raise ValueError(f"outputs {list(outputs.shape)} and {len(labels)} labels do not pair")
    if not len(labels):
        raise ValueError("no images: nothing to score")
    classes = outputs.shape[1]
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels {labels.min()} to {labels.max()}, but the outputs are of {classes} classes")
    if broken := int((~np.isfinite(outputs)).any(axis=1).sum()):
        raise ValueError(f"NaN or infinite outputs on {broken} of {len(outputs)} images")
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, outputs.argmax(axis=1)), 1)
    tied = (outputs == outputs.max(axis=1, keepdims=True)).sum(axis=1) > 1
    return Scores(confusion, int(tied.sum()), tuple(class_names) or numbers(classes))
