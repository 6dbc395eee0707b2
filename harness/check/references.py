"""The reference of a check: stored outputs of the Keras model, or computed ones where model or dataset changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from converters import keras_model
from converters.keras_process import KerasProcess
from harness.artifacts import reference
from harness.artifacts.reference import Reference
from harness.core.errors import SetupError
from harness.core.progress import Step
from harness.images.dataset import Dataset


def obtain(model: Path, data: Dataset, folder: Path, step: Step, imports: Sequence[str] = ()) -> Reference:
    """The reference that the folder holds, or a new one, stored there for the next time.

    Only computing needs TensorFlow. imports: modules that register the model's own layers. Raises SetupError.
    """
    model_sha256 = reference.model_sha256(model)
    if known := reference.stored(folder, model_sha256, data.sha256, len(data), data.spec):
        return known
    with step(f"reference: {model.name} on {len(data)} images"), KerasProcess() as keras:
        return compute(model, model_sha256, data, folder, keras, imports)


def compute(
    model: Path, model_sha256: str, data: Dataset, folder: Path, keras: KerasProcess, imports: Sequence[str] = ()
) -> Reference:
    """A new reference, stored in the folder. Raises SetupError."""
    outputs, folded = keras.call(keras_model.predict_folded_too, model, data, tuple(imports))
    if broken := int((~np.isfinite(outputs)).any(axis=1).sum()):
        raise SetupError(
            f"{model}: NaN or infinite outputs on {broken} of {len(data)} images; a reference must be finite"
        )
    computed = Reference(outputs, model_sha256, data.sha256, data.spec, folded)
    reference.store(computed, folder)
    return computed
