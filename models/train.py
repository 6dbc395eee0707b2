"""Train the reference model: `python -m models.train [CONFIG.toml] [--epochs N ...]`.

Stopped at any moment, the same command continues from the last epoch's checkpoint.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from converters import keras_model
from harness import dataset, terminal
from harness.dataset import Dataset
from harness.errors import Exit, SetupError
from harness.files import write_atomic
from models import config
from models.augment import augment
from models.config import Augmentation, TrainConfig
from models.fused_batch_norm import FusedBatchNormalization
from models.optimizer import NesterovSGD
from models.resnet import build_resnet


class Batches(keras.utils.PyDataset):
    """Augmented batches of a dataset, an epoch being `steps` of them; the order follows from seed and epoch."""

    def __init__(self, data: Dataset, settings: TrainConfig, steps: int, epoch: int) -> None:
        super().__init__(workers=1, use_multiprocessing=False, max_queue_size=8)
        self.data, self.settings, self.steps, self.epoch = data, settings, steps, epoch

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        step = self.epoch * self.steps + index
        size = self.settings.batch_size
        position = np.arange(step * size, (step + 1) * size)
        chosen = np.concatenate(
            [
                self._order(turn)[position[position // len(self.data) == turn] % len(self.data)]
                for turn in np.unique(position // len(self.data))
            ]
        )
        rng = np.random.default_rng([self.settings.seed, step])
        images = augment(self.data.images[chosen], self.settings.augmentation, rng)
        return dataset.to_input(images), self.data.labels[chosen]

    def _order(self, turn: int) -> np.ndarray:
        """The order of the dataset's images in its turn-th pass."""
        return np.random.default_rng([self.settings.seed, turn]).permutation(len(self.data))

    def on_epoch_end(self) -> None:
        self.epoch += 1


def split(data: Dataset, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of training and validation images, disjoint, the share taken from every class alike."""
    validation = []
    rng = np.random.default_rng(seed)
    for label in np.unique(data.labels):
        own = rng.permutation(np.flatnonzero(data.labels == label))
        validation.append(own[: max(1, round(len(own) * share))] if len(own) > 1 else own[:0])
    held = np.sort(np.concatenate(validation))
    return np.setdiff1d(np.arange(len(data)), held), held


def plain_model(trained: keras.Model, settings: TrainConfig) -> keras.Model:
    """The same weights in a float32 model of Keras's own layers: what ships."""
    policy = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy("float32")
    try:
        model = build_resnet(settings.depth, classes=settings.classes, image_size=settings.image_size)
    finally:
        keras.mixed_precision.set_dtype_policy(policy)
    model.set_weights(trained.get_weights())
    return model


def save(model: keras.Model, path: Path) -> None:
    """Write a .keras file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.stem}.part.keras")
    model.save(unfinished)
    unfinished.replace(path)


@dataclass(frozen=True)
class Progress:
    """How far a run has come, stored beside its checkpoint. run: the settings that make it this run and no other."""

    run: str
    epoch: int = 0
    history: tuple[dict[str, float], ...] = ()


class Checkpoint(keras.callbacks.Callback):
    """After every epoch: model, optimizer and progress, swapped in whole."""

    def __init__(self, path: Path, progress: Progress) -> None:
        super().__init__()
        self.path, self.progress = path, progress

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        values = {key: float(value) for key, value in (logs or {}).items()}
        self.progress = replace(self.progress, epoch=epoch + 1, history=(*self.progress.history, values))
        # The progress first: it says whose checkpoint this is. How far that has come, its optimizer's step count says.
        write_atomic(self.path.with_suffix(".json"), json.dumps(asdict(self.progress), indent=1).encode())
        save(self.model, self.path)


def train(settings: TrainConfig) -> keras.Model:
    """Run a config from where it stands to its end; the plain float32 model, also saved at settings.out."""
    keras.utils.set_random_seed(settings.seed)
    with terminal.Bars() as bars:
        data = dataset.load(
            settings.data,
            classes=settings.classes,
            image_size=settings.image_size,
            progress=partial(bars, f"reading {settings.data}"),
        )
    learn, held = split(data, settings.validation_share, settings.seed)
    training = dataset.build(data.images[learn], data.labels[learn].tolist(), [data.names[i] for i in learn])
    held_out = dataset.to_input(data.images[held]), data.labels[held]
    steps = settings.steps_per_epoch or -(-len(training) // settings.batch_size)

    checkpoint = settings.out.with_name(f"{settings.out.stem}.checkpoint.keras")
    model, progress = _start(settings, checkpoint, steps)
    if progress.epoch >= settings.epochs:
        print(f"{checkpoint}: already at epoch {progress.epoch} of {settings.epochs}")
    else:
        _keep_freed_memory()
        model.fit(
            Batches(training, settings, steps, progress.epoch),
            epochs=settings.epochs,
            initial_epoch=progress.epoch,
            validation_data=held_out,
            validation_batch_size=256,
            callbacks=[Checkpoint(checkpoint, progress), keras.callbacks.TerminateOnNaN()],
            verbose=1 if sys.stdout.isatty() else 2,
        )
    shipped = plain_model(model, settings)
    save(shipped, settings.out)
    return shipped


def _start(settings: TrainConfig, checkpoint: Path, steps: int) -> tuple[keras.Model, Progress]:
    """A compiled model and its progress: from the checkpoint, from given weights, or from scratch."""
    model = compile_model(settings, steps)
    progress = Progress(run=repr(replace(settings, epochs=1)))  # a run may be made longer
    if not checkpoint.exists():
        if settings.init:
            try:
                model.set_weights(keras_model.load(settings.init).get_weights())
            except ValueError as error:
                raise SetupError(f"{settings.init}: its weights fit another depth or class count") from error
        return model, progress
    try:
        found = json.loads(checkpoint.with_suffix(".json").read_text())
    except (OSError, ValueError) as error:
        raise SetupError(f"{checkpoint}: its .json cannot be read ({error}); remove both to start anew") from error
    if found["run"] != progress.run:
        raise SetupError(
            f"{checkpoint}: left by a run with other settings; remove it to start anew, or give another --out"
        )
    stored = keras.models.load_model(checkpoint, custom_objects={"FusedBatchNormalization": FusedBatchNormalization})
    model.set_weights(stored.get_weights())
    for variable, value in zip(model.optimizer.variables, stored.optimizer.variables, strict=True):
        if variable.name != "learning_rate":
            variable.assign(value)
    done = int(stored.optimizer.iterations.numpy()) // steps
    print(f"{checkpoint}: continuing after epoch {done}", flush=True)
    return model, replace(progress, epoch=done, history=tuple(found["history"][:done]))


def compile_model(settings: TrainConfig, steps: int) -> keras.Model:
    """The network to train, its optimizer built. steps: in an epoch."""
    keras.mixed_precision.set_dtype_policy(settings.precision)
    model = build_resnet(
        settings.depth,
        classes=settings.classes,
        image_size=settings.image_size,
        batch_norm=FusedBatchNormalization,
    )
    optimizer = NesterovSGD(
        learning_rate_schedule(settings, steps), momentum=settings.momentum, l2=settings.weight_decay
    )
    optimizer.build(model.trainable_variables)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    return model


def _keep_freed_memory() -> None:
    """Tell glibc to keep large freed blocks: giving each activation back to the kernel costs 5 % of the time."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        m_trim_threshold, m_mmap_threshold, largest = -1, -3, 2**31 - 1
        libc.mallopt(m_mmap_threshold, largest)
        libc.mallopt(m_trim_threshold, largest)
    except OSError:
        return  # not glibc


def learning_rate_schedule(settings: TrainConfig, steps: int) -> Any:
    """Linear warm-up to the peak, then a cosine to zero."""
    total = settings.epochs * steps
    warmup = round(total * settings.warmup_share)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=settings.learning_rate / 100,
        warmup_target=settings.learning_rate,
        warmup_steps=warmup,
        decay_steps=total - warmup,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m models.train", description=__doc__.splitlines()[0])
    parser.add_argument("config", nargs="?", type=Path, help="TOML file; keys as in models/config.py")
    for name, kind in (
        ("data", Path),
        ("out", Path),
        ("init", Path),
        ("epochs", int),
        ("batch-size", int),
        ("steps-per-epoch", int),
        ("learning-rate", float),
        ("depth", int),
        ("seed", int),
    ):
        parser.add_argument(f"--{name}", type=kind)
    parser.add_argument("--no-augmentation", action="store_true")
    options = vars(parser.parse_args(arguments))
    path, plain = options.pop("config"), options.pop("no_augmentation")
    try:
        train(config.load(path, **options, augmentation=Augmentation(enabled=False) if plain else None))
    except SetupError as error:
        print(f"models.train: {error}", file=sys.stderr)
        return Exit.SETUP
    except KeyboardInterrupt:
        print("models.train: interrupted; the same command continues", file=sys.stderr)
        return Exit.INTERRUPTED
    return Exit.PASS


if __name__ == "__main__":
    sys.exit(main())
