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
from harness.core import shapes
from harness.core.errors import SetupError
from harness.core.files import write_atomic
from harness.images.dataset import Dataset
from harness.images.spec import ModelSpec

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
    spec: ModelSpec
    folded: npt.NDArray[np.float32] | None = None


def obtain(
    model: Path,
    data: Dataset,
    store: Path,
    step: Callable[[str], AbstractContextManager[None]],
    imports: Sequence[str] = (),
) -> Reference:
    """The stored reference, or a new one where model or dataset changed; stored in the folder for the next time.

    Only computing needs TensorFlow. imports: modules that register the model's own layers. Raises SetupError.
    """
    model_sha256 = keras_model.sha256(model)
    if found := stored(store, model_sha256, data.sha256, len(data), data.spec):
        return found
    from converters.keras_process import KerasProcess

    with step(f"reference: {model.name} on {len(data)} images"), KerasProcess() as keras:
        return compute(model, model_sha256, data, store, keras, imports)


def stored(store: Path, model_sha256: str, data_sha256: str, images: int, takes: ModelSpec) -> Reference | None:
    """The reference that the folder holds of a model and a dataset, read by this spec; none: it has none."""
    found = read(_path(store, model_sha256, data_sha256))
    wanted = model_sha256, data_sha256, (images, len(takes.class_names))
    if found and (found.model_sha256, found.data_sha256, found.outputs.shape) == wanted:
        return found if found.spec.same_input(takes) else None
    return None


def compute(
    model: Path,
    model_sha256: str,
    data: Dataset,
    store: Path,
    keras: KerasProcess,
    imports: Sequence[str] = (),
) -> Reference:
    """A new reference, stored in the folder. Raises SetupError."""
    outputs, folded = keras.call(keras_model.predict_folded_too, model, data, tuple(imports))
    if broken := int((~np.isfinite(outputs)).any(axis=1).sum()):
        raise SetupError(f"{model}: NaN or infinite outputs on {broken} of {len(data)} images; a reference must answer")
    computed = Reference(outputs, model_sha256, data.sha256, data.spec, folded)
    buffer = io.BytesIO()
    np.savez(
        buffer,
        outputs=outputs,
        folded=folded,
        model_sha256=np.array(model_sha256),
        data_sha256=np.array(data.sha256),
        spec=np.array(shapes.encode(data.spec).decode()),
    )
    write_atomic(_path(store, model_sha256, data.sha256), buffer.getvalue())
    return computed


def _path(store: Path, model_sha256: str, data_sha256: str) -> Path:
    return store / f"reference-{model_sha256[:12]}-{data_sha256[:12]}.npz"


def doubts(accuracy: float, usual: float) -> tuple[str, ...]:
    """What a person should know before trusting the Keras model. usual: the share of the most frequent class."""
    if accuracy > usual or usual == 1:
        return ()
    return (
        f"the Keras model itself is right on {accuracy:.2%} of the images, no more often than one answer to all: are "
        "pixel_range, mean, std and the order of class_names those of its training?",
    )


def read(path: Path) -> Reference | None:
    """A stored reference; none where it is missing or damaged, so that it is computed anew."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            hashes = str(stored["model_sha256"]), str(stored["data_sha256"])
            takes = shapes.decode(str(stored["spec"]), ModelSpec, str(path))
            return Reference(stored["outputs"], *hashes, takes, stored.get("folded"))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, SetupError):
        return None
