"""One model against labelled images: what it answers, how often it is right, and where not."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness import dataset, job, metrics, parity, reference
from harness.dataset import CLASSES, IMAGE_SIZE, Dataset
from harness.devices import local
from harness.devices.base import Progress
from harness.errors import SetupError
from harness.files import sha256
from harness.metrics import Scores

SCHEMA = "harness-evaluation/1"
KERAS, TFLITE = ".keras", ".tflite"
TFLITE_MARK = slice(4, 8), b"TFL3"


@dataclass(frozen=True)
class Evaluation:
    """outputs: the model's answers as real numbers [N, classes]. runtime: what computed them."""

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
        """The class answered for each image [N]."""
        answers: npt.NDArray[np.intp] = self.outputs.argmax(axis=1)
        return answers

    @cached_property
    def confidences(self) -> npt.NDArray[np.floating]:
        """The largest output for each image [N]: a probability where the model ends in a softmax."""
        largest: npt.NDArray[np.floating] = self.outputs.max(axis=1)
        return largest

    @cached_property
    def order(self) -> list[int]:
        """Every image: misses, most confident first, then right answers, least confident first."""
        right = self.answers == self.data.labels
        return [int(i) for i in np.lexsort((np.where(right, 1, -1) * self.confidences, right))]

    @property
    def misses(self) -> list[int]:
        """The images answered wrongly, most confident first."""
        return self.order[: self.scores.images - self.scores.right]

    def to_json(self) -> dict[str, Any]:
        """The published shape: shares of 1, bytes; null where a share's divisor is 0."""
        return {
            "schema": SCHEMA,
            "started": self.started,
            "model": {"file": str(self.model), "sha256": self.model_sha256, "size_bytes": self.model_bytes},
            "data": {
                "folder": str(self.folder),
                "sha256": self.data.sha256,
                "images": len(self.data),
                "skipped": list(self.data.skipped),
            },
            "runtime": self.runtime,
            "accuracy": self.scores.accuracy,
            "ties": self.scores.ties,
            "classes": [
                {"images": c.images, "answers": c.answers, "precision": c.precision, "recall": c.recall, "f1": c.f1}
                for c in self.scores.classes
            ],
            "confusion": self.scores.confusion.tolist(),
            "misses": [
                {
                    "image": self.data.names[i],
                    "truth": int(self.data.labels[i]),
                    "answer": int(self.answers[i]),
                    "confidence": float(self.confidences[i]),
                }
                for i in self.misses
            ],
        }


def evaluate(
    model: Path,
    folder: Path,
    store: Path,
    step: Callable[[str], AbstractContextManager[None]] = lambda name: nullcontext(),
    progress: Progress = lambda task, done, total: None,
    *,
    classes: int = CLASSES,
    image_size: int = IMAGE_SIZE,
    skip_bad: bool = False,
) -> Evaluation:
    """A .keras or .tflite model on a folder's images; a .tflite file needs no TensorFlow.

    store: where a Keras model's outputs are kept, and found the next time.
    Raises SetupError: no such model or images, a model that does not run, does not fit the data, or answers NaN.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    content = _read(model)
    data = dataset.load(
        folder,
        classes=classes,
        image_size=image_size,
        skip_bad=skip_bad,
        progress=partial(progress, f"reading {folder}"),
    )
    if model.suffix == KERAS:
        outputs: npt.NDArray[np.floating] = reference.obtain(model, data, store, step, classes).outputs
        runtime = "Keras"
    else:
        outputs, runtime = _run(model, content, data, progress, classes)
    try:
        scores = metrics.score(outputs, data.labels)
    except ValueError as error:
        raise SetupError(f"{model}: {error}; a model must answer every image") from error
    return Evaluation(model, sha256(content), len(content), folder, data, outputs, scores, runtime, started)


def evaluate_all(models: Path, folder: Path, store: Path, **options: Any) -> tuple[list[Evaluation], list[str]]:
    """A model, or every model below a folder, Keras first; and in one line each, the models that cannot be evaluated.

    Raises SetupError: there is no model, or none can be evaluated.
    """
    found = [models]
    if models.is_dir():
        found = [path for suffix in (KERAS, TFLITE) for path in sorted(models.rglob(f"*{suffix}"))]
    done, refused = [], []
    for model in found:
        try:
            done.append(evaluate(model, folder, store, **options))
        except SetupError as error:
            refused.append(str(error))
    if not done:
        raise SetupError("; ".join(refused) or f"{models}: expected {KERAS} or {TFLITE} models in it; there are none")
    return done, refused


def _read(model: Path) -> bytes:
    if model.suffix not in (KERAS, TFLITE):
        raise SetupError(f"{model}: expected a model's file, named *{KERAS} or *{TFLITE}")
    try:
        content = model.read_bytes()
    except OSError as error:
        raise SetupError(f"{model}: expected a model ({error.strerror}); make one, or name another") from error
    where, mark = TFLITE_MARK
    if model.suffix == TFLITE and content[where] != mark:
        raise SetupError(f"{model}: not a TFLite file (its bytes 4 to 7 are not {mark.decode()}); convert again")
    return content


def _run(
    model: Path, content: bytes, data: Dataset, progress: Progress, classes: int
) -> tuple[npt.NDArray[np.floating], str]:
    """The real outputs of a .tflite file and its runtime, from a process of its own: a damaged file may crash it."""
    with tempfile.TemporaryDirectory(prefix="harness-job-") as folder:
        written = job.write_answers(Path(folder), content, data, job.ALL_CORES)
        ended = local.run(written, lambda task, done, total: progress(model.name, done, total))
        result = job.read_result(written, job.ANSWERS)
    if result is None:
        size = data.images.shape[1]
        what = "the worker was silent too long" if ended.code is None else f"exit code {ended.code}"
        raise SetupError(
            f"{model}: does not run on {size}x{size} grey images ({': '.join(filter(None, (what, ended.tail)))}); "
            "expected a whole .tflite file for such images: convert again, or name its size with --image-size"
        )
    raw = result.arrays["outputs"]
    if raw.shape[1:] != (classes,):
        answers = raw.shape[1] if raw.ndim == 2 else list(raw.shape[1:])
        raise SetupError(f"{model}: answers with {answers} classes, expected {classes}; name the number with --classes")
    outputs = parity.dequantize(raw, float(result.arrays["scale"]), int(result.arrays["zero_point"]))
    return outputs, f"{result.machine['runtime']}, {result.machine['machine']}"
