"""Callbacks of a training run: checkpoints, the progress bar, the learning rate, a stop at NaN."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
from msgspec.structs import replace
from tqdm import tqdm

from harness.core import shapes
from harness.core.errors import SetupError
from harness.core.files import write_atomic
from harness.core.shapes import Shape
from models import curve
from models.config import TrainConfig

Logs = dict[str, float] | None


class Progress(Shape):
    """The progress of a run, stored beside its checkpoint. run: the settings that identify it."""

    run: str
    epoch: int = 0
    history: tuple[dict[str, float], ...] = ()

    def best(self) -> float:
        return max((entry.get("val_accuracy", 0.0) for entry in self.history), default=-1.0)


@contextmanager
def alone() -> Iterator[None]:
    """For work that only one of several processes does: nothing is distributed to the others."""
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


def save(model: keras.Model, path: Path) -> None:
    """Write a .keras file atomically. Raises SetupError if it cannot be written."""
    unfinished = path.with_name(f".{path.stem}.part.keras")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with alone():
            model.save(unfinished)
        unfinished.replace(path)
    except (OSError, RuntimeError) as error:  # h5py raises either on a full disk
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120]
        raise SetupError(f"{path}: cannot be written ({reason}); what was saved before is kept") from error
    finally:
        unfinished.unlink(missing_ok=True)


class Checkpoint(keras.callbacks.Callback):
    """After each epoch, writes model, optimizer, progress and curve atomically, and the files that `save` asks for."""

    def __init__(
        self, settings: TrainConfig, path: Path, progress: Progress, plain: Callable[[keras.Model], keras.Model]
    ) -> None:
        super().__init__()
        self.settings, self.path, self.progress, self.plain = settings, path, progress, plain

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        values = {key: float(value) for key, value in (logs or {}).items()}
        best = values.get("val_accuracy", 0.0) > self.progress.best()
        self.progress = replace(self.progress, epoch=epoch + 1, history=(*self.progress.history, values))
        # The progress first: it says which run the checkpoint belongs to. Its epoch follows from the optimizer's steps.
        write_atomic(self.path.with_suffix(".json"), shapes.encode(self.progress))
        out = self.settings.out
        if self.settings.save == "best" and best:
            save(self.plain(self.model), beside(out, "best.keras"))
        if self.settings.save == "every":
            save(self.plain(self.model), beside(out, f"epoch{epoch + 1:03}.keras"))
        save(self.model, self.path)
        curve.draw(self.progress.history, beside(out, "png"))


def beside(out: Path, suffix: str) -> Path:
    """A file beside the model: its name with another ending."""
    return out.with_name(f"{out.stem}.{suffix}")


class StopOnNaN(keras.callbacks.Callback):
    """Raises SetupError if the loss, or a weight at the end of an epoch, is NaN or infinite; it is not saved."""

    def __init__(self, checkpoint: Path) -> None:
        super().__init__()
        self.checkpoint, self.epoch = checkpoint, 0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(float(loss)):
            self._stop(f"the loss became {loss} in epoch {self.epoch + 1}, step {batch + 1}")

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if not all(np.isfinite(weights).all() for weights in self.model.get_weights()):
            self._stop(f"weights became infinite or NaN in the last step of epoch {epoch + 1}")
        for name, value in (logs or {}).items():
            if not math.isfinite(float(value)):
                self._stop(f"{name} became {value} in epoch {epoch + 1}")

    def _stop(self, what: str) -> None:
        kept = f"{self.checkpoint} of epoch {self.epoch} is kept" if self.epoch else "nothing was saved yet"
        raise SetupError(
            f"{what}; {kept}; lower learning_rate and start again, from a saved model with --init and another --out"
        )


class WarmUp(keras.callbacks.Callback):
    """Raises the learning rate linearly to its peak, for an optimizer whose rate is a number."""

    def __init__(self, peak: float, steps: int) -> None:
        super().__init__()
        self.peak, self.steps = peak, steps

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        done = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        if done < self.steps:
            self.model.optimizer.learning_rate = self.peak * (done + 1) / self.steps


class Plateau(keras.callbacks.ReduceLROnPlateau):
    """Keras's own callback, which also takes the epochs before a run continued into account."""

    def __init__(self, settings: TrainConfig, history: Sequence[dict[str, float]]) -> None:
        super().__init__("val_loss", factor=settings.plateau_factor, patience=settings.plateau_patience, verbose=1)
        self.history = history

    def on_train_begin(self, logs: Logs = None) -> None:
        super().on_train_begin(logs)
        for epoch, values in enumerate(self.history):
            self.on_epoch_end(epoch, dict(values))


class Bar(keras.callbacks.Callback):
    """One bar for the run, with loss, accuracy, images per second and time left; one line an epoch."""

    def __init__(self, settings: TrainConfig, steps: int, first: int) -> None:
        super().__init__()
        self.settings, self.steps, self.first = settings, steps, first
        self.bar: tqdm[Any] | None = None
        self.begin = 0.0

    def on_train_begin(self, logs: Logs = None) -> None:
        total = self.settings.epochs * self.steps * self.settings.batch_size
        self.bar = tqdm(
            total=total,
            initial=self.first * self.steps * self.settings.batch_size,
            unit=" images",
            smoothing=0.05,
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self.begin = time.monotonic()
        if self.bar is not None:
            self.bar.set_description(f"epoch {epoch + 1}/{self.settings.epochs}", refresh=False)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        if self.bar is not None and logs:
            self.bar.set_postfix_str(f"loss {logs['loss']:.4f}, accuracy {logs['accuracy']:.2%}", refresh=False)
            self.bar.update(self.settings.batch_size)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        seconds = time.monotonic() - self.begin
        values = logs or {}
        line = f"epoch {epoch + 1}/{self.settings.epochs}: loss {values['loss']:.4f}, accuracy {values['accuracy']:.2%}"
        if "val_loss" in values:
            line += f"; validation {values['val_loss']:.4f}, {values['val_accuracy']:.2%}"
        line += f"; {self.steps * self.settings.batch_size / seconds:.0f} images/s with validation"
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
