"""A model's predictions for images whose class is not known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from msgspec import field

from harness.core.errors import SetupError
from harness.core.progress import Progress
from harness.core.shapes import Shape
from harness.images import dataset
from harness.images.spec import UNLABELLED
from harness.tools import classifier
from harness.tools.classifier import Classifier


class PredictingModel(Shape):
    file: str
    sha256: str


class ClassConfidence(Shape):
    name: str = field(name="class")
    confidence: float


class ImagePrediction(Shape):
    """top: the most likely classes, as many as were asked for."""

    image: str
    top: tuple[ClassConfidence, ...]


class PredictionFile(Shape, tag_field="schema", tag="harness-prediction/1"):
    """What is published of predictions. problems: a line for each image that could not be read."""

    model: PredictingModel
    runtime: str
    images: tuple[ImagePrediction, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Prediction:
    """One image's most likely classes as (name, confidence), the most likely first; of equal ones the earlier class."""

    image: Path
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Predictions:
    """problems: a line for each image that could not be used."""

    model: Classifier
    images: tuple[Prediction, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    runtime: str

    @property
    def published(self) -> PredictionFile:
        """What is published."""
        images = tuple(
            ImagePrediction(str(image.image), tuple(ClassConfidence(*pair) for pair in image.top))
            for image in self.images
        )
        model = PredictingModel(str(self.model.path), self.model.sha256)
        return PredictionFile(model, self.runtime, images, self.problems)


def predict(
    model: Classifier,
    named: Sequence[Path],
    top: int = 1,
    progress: Progress = lambda task, done, total: None,
) -> Predictions:
    """Images, and all files of folders; those that cannot be used are problems. Raises SetupError: none can."""
    paths, pixels, problems = [], [], []
    for path in _files(named):
        try:
            pixels.append(dataset.read_image(path, model.spec))
            paths.append(path)
        except SetupError as error:
            problems.append(str(error))
    if not paths:
        raise SetupError("; ".join(problems[:3]) or "no image in the folders named; expected readable image files")
    data = dataset.build(np.stack(pixels), [UNLABELLED] * len(paths), [str(path) for path in paths], model.spec)
    outputs, runtime = classifier.infer(model, data, progress)
    likeliest = np.argsort(-outputs, axis=1, kind="stable")[:, :top]
    names = model.spec.class_names
    images = tuple(
        Prediction(path, tuple((names[i], float(row[i])) for i in best))
        for path, row, best in zip(paths, outputs, likeliest, strict=True)
    )
    return Predictions(model, images, tuple(problems), data.notes, runtime)


def _files(named: Sequence[Path]) -> Iterator[Path]:
    """In the order named, a folder's in order of their names; hidden ones are left out."""
    for path in named:
        if path.is_dir():
            inner = (file for file in sorted(path.rglob("*")) if file.is_file())
            yield from (
                file for file in inner if not any(part.startswith(".") for part in file.relative_to(path).parts)
            )
        else:
            yield path
