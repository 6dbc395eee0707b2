"""The reference: the Keras model's outputs on a dataset, computed once and stored by the hashes of both."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from converters import keras_model
from harness import spec
from harness.dataset import Dataset
from harness.errors import SetupError
from harness.files import write_atomic
from harness.spec import ModelSpec


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
    path = store / f"reference-{model_sha256[:12]}-{data.sha256[:12]}.npz"
    stored = read(path)
    wanted = model_sha256, data.sha256, (len(data), len(data.spec.class_names))
    if (
        stored
        and (stored.model_sha256, stored.data_sha256, stored.outputs.shape) == wanted
        and stored.spec.same_input(data.spec)
    ):
        return stored
    from converters.keras_process import KerasProcess

    with step(f"reference: {model.name} on {len(data)} images"), KerasProcess() as keras:
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
        spec=np.array(json.dumps(asdict(data.spec))),
    )
    write_atomic(path, buffer.getvalue())
    return computed


def notes(found: Reference, data: Dataset) -> tuple[str, ...]:
    """What a person should know before trusting images or model."""
    accuracy = float((found.outputs.argmax(axis=1) == data.labels).mean())
    usual = float(np.bincount(data.labels).max() / len(data))
    if accuracy > usual or usual == 1:
        return data.notes
    guess = (
        f"the Keras model itself is right on {accuracy:.2%} of the images, no more often than one answer to all: are "
        "pixel_range, mean, std and the order of class_names those of its training?"
    )
    return (*data.notes, guess)


def read(path: Path) -> Reference | None:
    """A stored reference; none where it is missing or damaged, so that it is computed anew."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            hashes = str(stored["model_sha256"]), str(stored["data_sha256"])
            takes = spec.build(json.loads(str(stored["spec"])), str(path))
            return Reference(stored["outputs"], *hashes, takes, stored.get("folded"))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, SetupError):
        return None
