"""The trained model: opened safely, checked against the data, and asked. Runs where Keras is."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness import files
from harness.dataset import to_input
from harness.errors import SetupError

PREDICT_BATCH = 128


def sha256(path: Path) -> str:
    """The hash of a model file. Raises SetupError where there is no such file, or no .keras archive."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SetupError(f"{path}: expected a .keras model; {error.strerror}") from error
    if not zipfile.is_zipfile(path):
        raise SetupError(f"{path}: not a .keras file (expected the archive that Keras 3's model.save writes)")
    return files.sha256(content)


def load(path: Path) -> Any:
    """The model, uncompiled, in Keras's safe mode. Raises SetupError: not a model, a Lambda or unknown layer."""
    sha256(path)
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import keras

    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever its parts raise
        text = " ".join(str(error).split())
        if "lambda" in text.lower():
            raise SetupError(
                f"{path}: holds a Lambda layer, code that a file could smuggle in; rebuild it from plain layers"
            ) from error
        raise SetupError(f"{path}: Keras cannot load it ({type(error).__name__}: {text[:200]})") from error


def check_shapes(model: Any, path: Path, image_size: int, classes: int) -> None:
    """Raise SetupError unless the model maps [N, size, size, 1] to [N, classes]."""
    wanted = (None, image_size, image_size, 1), (None, classes)
    received = getattr(model, "input_shape", None), getattr(model, "output_shape", None)
    if received != wanted:
        raise SetupError(f"{path}: maps {received[0]} to {received[1]}; the data needs {wanted[0]} to {wanted[1]}")


def predict(path: Path, images: npt.NDArray[np.uint8], classes: int) -> npt.NDArray[np.float32]:
    """The model's outputs [N, classes] for uint8 images [N, size, size, 1], in batches."""
    model = load(path)
    check_shapes(model, path, images.shape[1], classes)
    outputs = model.predict(to_input(images), batch_size=PREDICT_BATCH, verbose=0)
    return np.asarray(outputs, np.float32)


def predict_folded_too(
    path: Path, images: npt.NDArray[np.uint8], classes: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The outputs of the model, as `predict` gives them, and those of the model with its batch norms folded."""
    from converters.fold import fold

    model = load(path)
    check_shapes(model, path, images.shape[1], classes)
    inputs = to_input(images)
    outputs, folded = (
        np.asarray(each.predict(inputs, batch_size=PREDICT_BATCH, verbose=0), np.float32)
        for each in (model, fold(model).model)
    )
    return outputs, folded
