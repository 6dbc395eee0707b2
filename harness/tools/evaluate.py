"""One model on labelled images: its predictions, how often they are right, and where they are not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.check import references
from harness.core.errors import SetupError
from harness.core.progress import Progress
from harness.core.shapes import Count, Shape, Share
from harness.images import dataset
from harness.images.dataset import Dataset
from harness.images.spec import UNLABELLED
from harness.images.tensors import LABELS
from harness.tools import classifier, metrics
from harness.tools.classifier import KERAS, TFLITE
from harness.tools.metrics import Scores


class EvaluatedModel(Shape):
    file: str
    sha256: str
    size_bytes: Count


class EvaluatedData(Shape):
    folder: str
    sha256: str
    images: Count
    skipped: tuple[str, ...]


class EvaluatedClass(Shape):
    """images: of the class; answers: with it. None if a share's divisor is 0."""

    name: str
    images: Count
    answers: Count
    precision: Share | None
    recall: Share | None
    f1: Share | None


class Miss(Shape):
    """An image predicted wrongly, and the largest output."""

    image: str
    truth: str
    answer: str
    confidence: float


class EvaluationFile(Shape, tag_field="schema", tag="harness-evaluation/2"):
    """What is published of an evaluation. confusion: counts [truth][answer]."""

    started: str
    model: EvaluatedModel
    data: EvaluatedData
    runtime: str
    accuracy: Share
    ties: Count
    classes: tuple[EvaluatedClass, ...]
    confusion: tuple[tuple[Count, ...], ...]
    misses: tuple[Miss, ...]


@dataclass(frozen=True)
class Evaluation:
    """outputs: real numbers [N, classes]. runtime: what computed them."""

    model: Path
    model_sha256: str
    model_bytes: int
    folder: Path
    data: Dataset
    outputs: npt.NDArray[np.floating]
    scores: Scores
    runtime: str
    started: str  # UTC, ISO 8601

    @cached_property
    def answers(self) -> npt.NDArray[np.intp]:
        """The class predicted for each image [N]."""
        answers: npt.NDArray[np.intp] = self.outputs.argmax(axis=1)
        return answers

    @cached_property
    def confidences(self) -> npt.NDArray[np.floating]:
        """The largest output for each image [N]: a probability if the model ends in a softmax."""
        largest: npt.NDArray[np.floating] = self.outputs.max(axis=1)
        return largest

    @cached_property
    def order(self) -> list[int]:
        """Every image: misses, the most confident first, then right predictions, the least confident first."""
        right = self.answers == self.data.labels
        return [int(i) for i in np.lexsort((np.where(right, 1, -1) * self.confidences, right))]

    @property
    def misses(self) -> list[int]:
        """The images predicted wrongly, the most confident first."""
        return self.order[: self.scores.images - self.scores.right]

    def name(self, label: int) -> str:
        """The name of a class."""
        return self.data.spec.class_names[label]

    @property
    def published(self) -> EvaluationFile:
        """What is published."""
        data, scores = self.data, self.scores
        return EvaluationFile(
            started=self.started,
            model=EvaluatedModel(str(self.model), self.model_sha256, self.model_bytes),
            data=EvaluatedData(str(self.folder), data.sha256, len(data), tuple(data.skipped)),
            runtime=self.runtime,
            accuracy=scores.accuracy,
            ties=scores.ties,
            classes=tuple(
                EvaluatedClass(c.name, c.images, c.answers, c.precision, c.recall, c.f1) for c in scores.classes
            ),
            confusion=scores.confusion.tolist(),
            misses=tuple(
                Miss(
                    data.names[i],
                    self.name(data.labels[i]),
                    self.name(self.answers[i]),
                    float(self.confidences[i]),
                )
                for i in self.misses
            ),
        )


def evaluate(
    model: Path,
    folder: Path,
    store: Path,
    step: Callable[[str], AbstractContextManager[None]] = lambda name: nullcontext(),
    progress: Progress = lambda task, done, total: None,
    *,
    config: Path | None = None,
    imports: Sequence[str] = (),
    skip_bad: bool = False,
) -> Evaluation:
    """Evaluate a .keras or .tflite model on a folder's images; a .tflite file needs no TensorFlow.

    store: the folder that keeps a Keras model's outputs. config: of the model, if it is not beside it.
    Raises SetupError: no such model or images, or a model that does not run, does not fit the data, or gives NaN.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    opened = classifier.open_model(model, store, config=config, imports=imports)
    data = dataset.load(folder, opened.spec, skip_bad=skip_bad, progress=partial(progress, f"reading {folder}"))
    if (data.labels == UNLABELLED).any():
        raise SetupError(
            f"{folder}: has no labels to evaluate by; expected {LABELS}, or harness check, which needs none"
        )
    if opened.is_keras:
        outputs: npt.NDArray[np.floating] = references.obtain(model, data, store, step, imports).outputs
        runtime = "Keras"
    else:
        outputs, runtime = classifier.infer(opened, data, progress)
    scores = metrics.score(outputs, data.labels, opened.spec.class_names)
    return Evaluation(model, opened.sha256, len(opened.content), folder, data, outputs, scores, runtime, started)


def evaluate_all(models: Path, folder: Path, store: Path, **options: Any) -> tuple[list[Evaluation], list[str]]:
    """Evaluate a model, or every model below a folder, Keras first; the others are refused, each in one line.

    Raises SetupError if there is no model, or none can be evaluated.
    """
    paths = [models]
    if models.is_dir():
        paths = [path for suffix in (KERAS, TFLITE) for path in sorted(models.rglob(f"*{suffix}"))]
    done, refused = [], []
    for model in paths:
        try:
            done.append(evaluate(model, folder, store, **options))
        except SetupError as error:
            refused.append(str(error))
    if not done:
        raise SetupError("; ".join(refused) or f"{models}: expected {KERAS} or {TFLITE} models in it")
    return done, refused
