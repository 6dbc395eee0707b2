"""The Keras model's outputs on images: read if they are stored, else computed and stored."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from converters import keras_model
from converters.keras_process import KerasProcess
from harness.artifacts import reference
from harness.artifacts.reference import Reference
from harness.core.errors import SetupError
from harness.core.progress import Step
from harness.images.dataset import Dataset


class References(Protocol):
    """Source of a check's reference outputs."""

    def obtain(self, data: Dataset) -> Reference:
        """Raises SetupError."""

    def stop(self) -> None:
        """Stop computing: a waiting caller gets a SetupError."""


class KerasReferences:
    """Used with `with`; one Keras process stays open for all images. Only computing needs TensorFlow.

    store: the folder that holds reference outputs. imports: modules that register the model's own layers.
    """

    def __init__(self, model: Path, store: Path, step: Step, imports: Sequence[str] = ()) -> None:
        self.model_sha256 = reference.model_sha256(model)
        self._model, self._store, self._step, self._imports = model, store, step, tuple(imports)
        self._keras: KerasProcess | None = None
        self._stack = ExitStack()
        self._stopped = False
        self._lock = threading.Lock()  # several checks want the same ones

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stopped = True
        self._stack.close()

    def obtain(self, data: Dataset) -> Reference:
        with self._lock:
            if stored := reference.stored(self._store, self.model_sha256, data.sha256, len(data), data.spec):
                return stored
            computed = self._compute(data)
            reference.store(computed, self._store)
            return computed

    def _compute(self, data: Dataset) -> Reference:
        if self._stopped:
            raise SetupError("interrupted")
        self._keras = self._keras or self._stack.enter_context(KerasProcess())
        with self._step(f"reference: {self._model.name} on {len(data)} images"):
            outputs, folded = self._keras.call(keras_model.predict_folded_too, self._model, data, self._imports)
        if broken := int((~np.isfinite(outputs)).any(axis=1).sum()):
            raise SetupError(
                f"{self._model}: NaN or infinite outputs on {broken} of {len(data)} images; a reference must be finite"
            )
        return Reference(outputs, self.model_sha256, data.sha256, data.spec, folded)


def obtain(model: Path, data: Dataset, store: Path, step: Step, imports: Sequence[str] = ()) -> Reference:
    """The reference on one set. Raises SetupError."""
    with KerasReferences(model, store, step, imports) as references:
        return references.obtain(data)
