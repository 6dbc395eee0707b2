"""Int8 files of one model in order of cost, until one passes the policy on images that none was made from.

As always; ranges averaged over images; biases corrected; weights clipped by litert-quantizer's OCTAV; mixed
precision, if a budget of flips allows float32; and trained.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from converters import calibration, calibration_lint, interpreter, keras_model, mixed, op_versions, quantize
from converters import quantization_training as training
from converters.calibration import Ranges
from converters.keras_process import KerasProcess
from converters.quantization_training import Plan, Progress
from converters.quantize import Weights
from harness.artifacts.manifest import Attempt, Recovery, Training
from harness.core.errors import SetupError
from harness.core.outcome import SEVERITY, Outcome
from harness.images.dataset import Dataset, take
from harness.images.spec import UNLABELLED

AS_ALWAYS = "as always"
AVERAGED = "ranges averaged"
CORRECTED = "biases corrected"
OCTAV = "weights clipped (OCTAV)"
MIXED = "mixed precision"
TRAINED = "quantization-aware training"
HELD_SHARE = 0.25  # of the images, on which files are compared
MIN_IMAGES = 40
CHECKPOINT = ".quantization-training.npz"

Outputs = npt.NDArray[np.float64]
Step = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class Wish:
    """images: of the training side. only_training: without the cheaper recipes. gate: the policy's outcome by labels
    [N], the Keras model's outputs and a variant's, [N, classes]."""

    images: Path | Dataset
    gate: Callable[[npt.NDArray[np.int64], Outputs, Outputs], Outcome]
    plan: Plan = field(default_factory=Plan)
    only_training: bool = False


@dataclass(frozen=True)
class Recovered:
    """The file, and how it came to be. choice: of a mixed one, and the images that it was made on."""

    content: bytes
    recovery: Recovery
    choice: tuple[mixed.Choice, Dataset] | None


@dataclass
class _Search:
    """One model's files. model: of the .tflite with balanced channels that int8 is made from."""

    keras: KerasProcess
    apart: KerasProcess
    source: Path
    imports: tuple[str, ...]
    balanced: bytes
    ranges: Ranges
    calibration: Dataset
    images: Dataset
    held: Dataset
    wish: Wish
    max_flips: int | None
    out: Path
    step: Step
    averaged: Ranges | None = None
    choice: mixed.Choice | None = None
    training: Training | None = None

    def __post_init__(self) -> None:
        self.best = self.ranges  # until averaged ones flip less

    def recipes(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        yield AS_ALWAYS, lambda: self.keras.call(quantize.make, "int8", self.balanced, self.ranges)
        yield AVERAGED, self._averaged
        if not self.wish.only_training:
            yield CORRECTED, self._corrected
            yield OCTAV, lambda: self._make(self.balanced, self.best, "clipped")
            if self.max_flips is not None:
                yield MIXED, self._mixed
        yield TRAINED, self._trained

    def _make(self, float32: bytes, ranges: Ranges, weights: Weights = "channel") -> bytes:
        return self.keras.call(quantize.make, "int8", float32, ranges, weights)

    def _averaged(self) -> bytes:
        self.averaged = self.apart.call(calibration.average, self.balanced, self.calibration)
        return self._make(self.balanced, self.averaged)

    def _corrected(self) -> bytes:
        made = self._make(self.balanced, self.best)
        return self._make(*self.keras.call(training.correct_biases, self.balanced, made, self.calibration, self.best))

    def _mixed(self) -> bytes:
        assert self.max_flips is not None
        self.choice = self.keras.call(mixed.choose, self.balanced, self.best, self.held, self.max_flips)
        return self.keras.call(op_versions.declare, self.choice.content)

    def _trained(self) -> bytes:
        plan, checkpoint = self.wish.plan, self.out / CHECKPOINT
        float32, int8 = self.balanced, self._make(self.balanced, self.best)
        progress = self.keras.call(
            training.start,
            float32,
            int8,
            self.ranges,
            self.source,
            self.imports,
            self.images,
            self.held,
            plan,
            checkpoint,
        )
        while progress.step < plan.steps and not progress.stopped:
            with self.step(f"training, {progress.step} of {plan.steps} steps, loss {progress.best_loss:.3g}"):
                progress = self.keras.call(training.advance)
        self.training = _training(plan, progress, self.images)
        made = self._make(*self.keras.call(training.finish, self.best))
        checkpoint.unlink(missing_ok=True)
        return made

    def run(self) -> Recovered:
        reference = np.asarray(self.keras.call(keras_model.predict, self.source, self.held, self.imports), np.float64)
        attempts: list[Attempt] = []
        best: tuple[tuple[int, int], int, bytes] | None = None
        for recipe, make in self.recipes():
            begin = time.monotonic()
            with self.step(f"int8, {recipe}"):
                try:
                    content = make()
                    outputs = self.apart.call(interpreter.predict, content, self.held)
                except SetupError as error:
                    if recipe in (AS_ALWAYS, TRAINED):
                        raise
                    seconds = round(time.monotonic() - begin, 1)
                    attempts.append(Attempt(recipe, None, 0, None, seconds, str(error)))
                    continue
            attempt = self._attempt(recipe, reference, outputs, round(time.monotonic() - begin, 1))
            attempts.append(attempt)
            assert attempt.outcome is not None
            if recipe == AVERAGED and self.averaged and attempt.flips < attempts[0].flips:
                self.best = self.averaged
            rank = SEVERITY.index(attempt.outcome), attempt.flips
            if best is None or rank < best[0]:
                best = rank, len(attempts) - 1, content
            if attempt.outcome is Outcome.PASS and not (self.wish.only_training and recipe != TRAINED):
                break
        assert best is not None
        _, place, content = best
        trained = self.training if attempts[place].recipe == TRAINED else None
        recovery = Recovery(attempts[place].recipe, tuple(attempts), len(self.held), self.held.sha256, trained)
        choice = (self.choice, self.held) if self.choice and recovery.recipe == MIXED else None
        return Recovered(content, recovery, choice)

    def _attempt(self, recipe: str, reference: Outputs, outputs: Outputs, seconds: float) -> Attempt:
        labels = self.held.labels
        answers = outputs.argmax(axis=1)
        labelled = labels != UNLABELLED
        accuracy = float((answers == labels)[labelled].mean()) if labelled.any() else None
        flips = int((answers != reference.argmax(axis=1)).sum())
        return Attempt(recipe, self.wish.gate(labels, reference, outputs), flips, accuracy, seconds, None)


def split(data: Dataset) -> tuple[Dataset, Dataset]:
    """Images to train on, and those held out. Raises SetupError for too few."""
    if len(data) < MIN_IMAGES:
        raise SetupError(f"--recover, --qat: {len(data)} images; expected at least {MIN_IMAGES}, better some thousands")
    order = np.random.default_rng(0).permutation(len(data))
    held = int(len(data) * HELD_SHARE)
    return take(data, np.sort(order[held:])), take(data, np.sort(order[:held]))


def check_images(data: Dataset, test: Dataset | None, plan: Plan) -> None:
    """Raise SetupError for images that must not be used."""
    if plan.learn_from == "labels":
        training.check_labels(data)
    calibration_lint.check(data, test, data.spec, "images of --recover, --qat")


def _training(plan: Plan, progress: Progress, images: Dataset) -> Training:
    return Training(
        plan.learn_from,
        len(images),
        images.sha256,
        progress.step,
        plan.batch_size,
        progress.best_step,
        progress.loss_before,
        progress.best_loss,
        progress.stopped,
    )


def recover(
    keras: KerasProcess,
    apart: KerasProcess,
    source: Path,
    imports: tuple[str, ...],
    balanced: bytes,
    ranges: Ranges,
    images: tuple[Dataset, Dataset],
    wish: Wish,
    out: Path,
    step: Step,
    max_flips: int | None = None,
) -> Recovered:
    """The first file that passes; without one the file with the fewest flips of those with the best outcome.

    balanced, ranges: what the int8 variant is made from. images: that calibrate, and those to recover with.
    Raises SetupError where int8 cannot be made at all, or an operation cannot be simulated.
    """
    chosen, whole = images
    return _Search(
        keras, apart, source, imports, balanced, ranges, chosen, *split(whole), wish, max_flips, out, step
    ).run()
