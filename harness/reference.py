"""The reference: the Keras model's outputs on a dataset, computed once and stored by the hashes of both."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from converters import keras_model
from harness.dataset import CLASSES, Dataset
from harness.errors import SetupError
from harness.files import write_atomic

if TYPE_CHECKING:
    from converters.keras_process import KerasProcess


@dataclass(frozen=True)
class Reference:
    """outputs: float32 probabilities [N, classes] of the model on the dataset, in the dataset's order.

    folded: those of the model with its batch norms folded; none where they were not computed.
    """

    outputs: npt.NDArray[np.float32]
    model_sha256: str
    data_sha256: str
    folded: npt.NDArray[np.float32] | None = None


def obtain(
    model: Path,
    data: Dataset,
    store: Path,
    step: Callable[[str], AbstractContextManager[None]],
    classes: int = CLASSES,
    imports: Sequence[str] = (),
) -> Reference:
    """The stored reference, or a new one where model or dataset changed; stored in the folder for the next time.

    Only computing needs TensorFlow. imports: modules that register the model's own layers. Raises SetupError.
    """
    model_sha256 = keras_model.sha256(model)
    if found := stored(store, model_sha256, data.sha256, (len(data), classes)):
        return found
    from converters.keras_process import KerasProcess

    with step(f"reference: {model.name} on {len(data)} images"), KerasProcess() as keras:
        return compute(model, model_sha256, data, store, keras, classes, imports)


def stored(store: Path, model_sha256: str, data_sha256: str, shape: tuple[int, int]) -> Reference | None:
    """The reference that the folder holds of a model and a dataset, [N, classes]; none where it holds none."""
    found = _read(_path(store, model_sha256, data_sha256))
    wanted = model_sha256, data_sha256, shape
    if found and (found.model_sha256, found.data_sha256, found.outputs.shape) == wanted:
        return found
    return None


def compute(
    model: Path,
    model_sha256: str,
    data: Dataset,
    store: Path,
    keras: KerasProcess,
    classes: int = CLASSES,
    imports: Sequence[str] = (),
) -> Reference:
    """A new reference, stored in the folder. Raises SetupError."""
    outputs, folded = keras.call(keras_model.predict_folded_too, model, data.images, classes, tuple(imports))
    if broken := int((~np.isfinite(outputs)).any(axis=1).sum()):
        raise SetupError(f"{model}: NaN or infinite outputs on {broken} of {len(data)} images; a reference must answer")
    computed = Reference(outputs, model_sha256, data.sha256, folded)
    buffer = io.BytesIO()
    np.savez(
        buffer,
        outputs=outputs,
        folded=folded,
        model_sha256=np.array(model_sha256),
        data_sha256=np.array(data.sha256),
    )
    write_atomic(_path(store, model_sha256, data.sha256), buffer.getvalue())
    return computed


def _path(store: Path, model_sha256: str, data_sha256: str) -> Path:
    return store / f"reference-{model_sha256[:12]}-{data_sha256[:12]}.npz"


def _read(path: Path) -> Reference | None:
    """A stored reference; none where it is missing or damaged, so that it is computed anew."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            hashes = str(stored["model_sha256"]), str(stored["data_sha256"])
            return Reference(stored["outputs"], *hashes, stored.get("folded"))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
