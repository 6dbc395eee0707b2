"""Training of a simulated int8 file, a few steps at a time, continued after any interruption. Runs where Keras is.

It learns the probabilities of the original float model (distillation), which need no labels, or the labels. The
original is asked anew for each batch, of images that are moved a little and half of them mixtures of two, as a patient
teacher is (Beyer and others, arXiv:2106.05237): some thousand images would otherwise be learned by heart. What is kept
is the state with the smallest loss on images that are held out: weights, or their average over some hundred steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from msgspec import structs

from converters import keras_model
from converters.calibration import Ranges
from harness.core import npz, shapes
from harness.core.errors import SetupError
from harness.core.files import sha256, write_atomic
from harness.core.shapes import Shape
from harness.images.dataset import Dataset, take
from harness.images.spec import UNLABELLED

Source = Literal["reference", "labels"]
CHECKS = 10  # of the loss on images held out, each with a checkpoint
LOSS_BATCH = 64
HELD_IMAGES = 1024  # of those held out, on which the loss is computed
DIVERGED = 3.0  # times the loss before training, and at least so many nats above it
AVERAGE = 0.99  # momentum of the weights' average: a weight between two steps goes to and fro (arXiv:2203.11086)
SMALLEST = 1e-7  # probability whose logarithm is taken
RATE, FINE_RATE = 1e-3, 3e-4
SHIFT = 1 / 8  # of an image's height and width
HARM = 0.02  # of the loss before training
SEED = 21
CORRECTION_IMAGES = 32  # all their activations are in memory at once

Array = npt.NDArray[np.float32]


class Plan(Shape):
    """learn_from: the reference's probabilities, or the labels. rate: of Adam, at its peak; it falls to zero. None for
    RATE where quantization does harm, and FINE_RATE where it hardly does."""

    learn_from: Source = "reference"
    steps: int = 600
    batch_size: int = 64
    rate: float | None = None


class Progress(Shape):
    """Losses are means over images held out, in nats. stopped: why training ended early, None if it did not."""

    step: int = 0
    loss_before: float = 0.0
    best_loss: float = 0.0
    best_step: int = 0
    stopped: str | None = None


@dataclass
class _Trainer:
    plan: Plan
    simulation: Any
    model: Any
    data: Dataset
    ask: Callable[[Array], Array] | None  # the original model; None where labels teach
    held: tuple[Array, Array]
    progress: Progress
    best: list[Array]
    checkpoint: Path
    run: str

    def advance(self) -> Progress:
        """Train up to the next check, and write a checkpoint there."""
        until = min(self.plan.steps, self.progress.step + -(-self.plan.steps // CHECKS))
        loss = 0.0
        for step in range(self.progress.step, until):
            loss = float(self.model.train_on_batch(*self._batch(step)))
            if not np.isfinite(loss):
                return self._stop(f"the loss was {loss} at step {step + 1}")
        held, weights = self._better()
        self.progress = structs.replace(self.progress, step=until)
        limit = max(DIVERGED * self.progress.loss_before, self.progress.loss_before + DIVERGED)
        if not held <= limit:
            return self._stop(f"the loss on images held out rose from {self.progress.loss_before:.3g} to {held:.3g}")
        if held < self.progress.best_loss:
            self.progress = structs.replace(self.progress, best_loss=held, best_step=until)
            self.best = weights
        self._write()
        return self.progress

    def _better(self) -> tuple[float, list[Array]]:
        """The loss on images held out, and the weights: as they are, or their averages where those have less."""
        now = [np.array(value) for value in self.model.get_weights()]
        loss = _loss(self.model, *self.held)
        self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
        averages = [np.array(value) for value in self.model.get_weights()]
        of_averages = _loss(self.model, *self.held)
        self.model.set_weights(now)
        return (of_averages, averages) if of_averages < loss else (loss, now)

    def _stop(self, why: str) -> Progress:
        self.progress = structs.replace(self.progress, stopped=f"{why}; the best state before is kept")
        self._write()
        return self.progress

    def _batch(self, step: int) -> tuple[Array, Array]:
        """Inputs and the probabilities that they teach."""
        chosen = self._chosen(step)
        inputs = self.data.spec.to_input(self.data.images[chosen])
        if self.ask is None:
            return inputs, _one_hot(self.data.labels[chosen], self.data)
        rng = np.random.default_rng((SEED, step))
        inputs = _mixed(_shifted(inputs, rng), rng)
        return inputs, self.ask(inputs)

    def _chosen(self, step: int) -> npt.NDArray[np.int64]:
        """Which images: every one as often, in another order each time, the same ones when continued."""
        size, total = self.plan.batch_size, len(self.data)
        positions = np.arange(step * size, (step + 1) * size)
        epochs = range(step * size // total, ((step + 1) * size - 1) // total + 1)
        orders = [np.random.default_rng((SEED, epoch)).permutation(total) for epoch in epochs]
        return np.concatenate(orders)[positions - epochs[0] * total]

    def _variables(self) -> list[Any]:
        return [*self.model.weights, *self.model.optimizer.variables]

    def _write(self) -> None:
        arrays = {f"now{number}": variable.numpy() for number, variable in enumerate(self._variables())}
        arrays |= {f"best{number}": value for number, value in enumerate(self.best)}
        arrays["progress"] = np.array(shapes.encode(self.progress).decode())
        arrays["run"] = np.array(self.run)
        write_atomic(self.checkpoint, npz.encode(arrays, compress=False))

    def resume(self) -> None:
        """Go on from the checkpoint if it is of this run; one that is damaged or of another run is ignored."""
        try:
            stored = npz.read(self.checkpoint.read_bytes(), str(self.checkpoint))
            if str(stored["run"]) != self.run:
                return
            progress = shapes.decode(str(stored["progress"]).encode(), Progress, str(self.checkpoint))
            values = [stored[f"now{number}"] for number in range(len(self._variables()))]
            best = [stored[f"best{number}"] for number in range(len(self.best))]
        except (OSError, SetupError, KeyError):
            return
        for variable, value in zip(self._variables(), values, strict=True):
            variable.assign(value)
        self.progress, self.best = progress, best


_trainers: list[_Trainer] = []  # at most one, of this process


def start(
    float32: bytes, int8: bytes, ranges: Ranges, source: Path, imports: tuple[str, ...], data: Dataset, held: Dataset,
    plan: Plan, checkpoint: Path,
) -> Progress:  # fmt: skip
    """Make ready, or continue from the checkpoint. source: the original model, which is asked unless labels teach.

    Raises SetupError: labels are missing, or an operation cannot be simulated.
    """
    import keras

    from converters.simulation import Simulation

    few = np.linspace(0, len(held) - 1, min(HELD_IMAGES, len(held))).astype(int)
    ask = keras_model.answers(source, data.spec, imports) if plan.learn_from == "reference" else None
    if ask is None:
        check_labels(data)
        check_labels(held)
    run = sha256(repr((sha256(float32), sha256(int8), data.sha256, held.sha256, shapes.encode(plan))).encode())
    keras.utils.set_random_seed(SEED)
    simulation = Simulation(float32, int8, ranges)
    simulation.correct_biases(_spread(data))
    images = keras.Input(data.spec.shape)
    model = keras.Model(images, simulation(images))
    held_inputs, held_labels = take(held, few).inputs(), held.labels[few]
    held_targets = _one_hot(held_labels, held) if ask is None else _in_batches(ask, held_inputs)
    before = _loss(model, held_inputs, held_targets)
    rate = plan.rate or (RATE if before > HARM else FINE_RATE)
    schedule = keras.optimizers.schedules.CosineDecay(rate, plan.steps)
    optimizer = keras.optimizers.Adam(schedule, use_ema=True, ema_momentum=AVERAGE)
    optimizer.build(model.trainable_variables)
    compiled = False if keras.backend.backend() == "tensorflow" else "auto"
    model.compile(optimizer, lambda wanted, given: -keras.ops.sum(wanted * given, axis=-1), jit_compile=compiled)
    trainer = _Trainer(
        plan, simulation, model, data, ask, (held_inputs, held_targets),
        Progress(loss_before=before, best_loss=before), model.get_weights(), checkpoint, run,
    )  # fmt: skip
    trainer.resume()
    _trainers[:] = [trainer]
    return trainer.progress


def advance() -> Progress:
    return _trainers[0].advance()


def finish(ranges: Ranges) -> tuple[bytes, Ranges]:
    """The trained float32 .tflite, and its ranges among those given."""
    trainer = _trainers.pop()
    trainer.model.set_weights(trainer.best)
    return trainer.simulation.trained(ranges)


def correct_biases(float32: bytes, int8: bytes, data: Dataset, ranges: Ranges) -> tuple[bytes, Ranges]:
    """The float32 .tflite with biases that make up for the weights' rounding. Raises SetupError as `start` does."""
    from converters.simulation import Simulation

    simulation = Simulation(float32, int8, ranges)
    simulation.correct_biases(_spread(data))
    return simulation.trained(ranges)


def _spread(data: Dataset) -> Array:
    """Images of every class, as inputs: folders come one class after another."""
    return take(data, np.linspace(0, len(data) - 1, min(CORRECTION_IMAGES, len(data))).astype(int)).inputs()


def check_labels(data: Dataset) -> None:
    """Raise SetupError if some images have no label."""
    if missing := int((data.labels == UNLABELLED).sum()):
        raise SetupError(
            f"--learn-from labels: {missing} of {len(data)} images have none; sort them into folders named as the "
            "classes, or leave it out: the original model's answers teach then"
        )


def _loss(model: Any, images: Array, targets: Array) -> float:
    """Divergence of the targets from what the model predicts, in nats an image."""
    import keras

    predicted = _in_batches(lambda part: keras.ops.convert_to_numpy(model(part)), images)
    return float(np.mean(np.sum(targets * (np.log(targets + SMALLEST) - predicted), axis=-1)))


def _in_batches(ask: Callable[[Array], Array], images: Array) -> Array:
    return np.concatenate([ask(images[start : start + LOSS_BATCH]) for start in range(0, len(images), LOSS_BATCH)])


def _one_hot(labels: npt.NDArray[np.int64], data: Dataset) -> Array:
    return np.eye(len(data.spec.class_names), dtype=np.float32)[labels]


def _shifted(inputs: Array, rng: np.random.Generator) -> Array:
    """Each image [N, H, W, C] moved by up to a share of SHIFT, its edge repeated; other inputs as they are."""
    if inputs.ndim != 4:
        return inputs
    places = []
    for size in inputs.shape[1:3]:
        most = int(size * SHIFT)
        moved = np.arange(size) + rng.integers(-most, most + 1, (len(inputs), 1))
        places.append(moved.clip(0, size - 1))
    rows, columns = places
    return inputs[np.arange(len(inputs))[:, None, None], rows[:, :, None], columns[:, None, :]]


def _mixed(inputs: Array, rng: np.random.Generator) -> Array:
    """Every other input mixed with another of the batch, by any shares (arXiv:1710.09412); the rest as they are."""
    share = rng.uniform(0, 1, (len(inputs), *[1] * (inputs.ndim - 1))).astype(np.float32)
    share[::2] = 1
    return share * inputs + (1 - share) * inputs[rng.permutation(len(inputs))]
