"""The trained model: opened safely, checked against the data, and asked. Runs where Keras is."""

from __future__ import annotations

import importlib
import os
import re
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness import files
from harness.dataset import to_input
from harness.errors import SetupError

PREDICT_BATCH = 128
HDF5 = b"\x89HDF\r\n\x1a\n"


def sha256(path: Path) -> str:
    """The hash of a model file. Raises SetupError: no such file, neither a .keras archive nor an .h5 file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SetupError(f"{path}: expected a .keras model; {error.strerror}") from error
    is_hdf5 = content.startswith(HDF5)
    if not is_hdf5 and not zipfile.is_zipfile(path):
        raise SetupError(f"{path}: not a .keras file (expected the archive that Keras 3's model.save writes)")
    if is_hdf5 != (path.suffix in (".h5", ".hdf5")):
        raise SetupError(f"{path}: {'an HDF5 file' if is_hdf5 else 'a .keras archive'} by another name; rename it")
    return files.sha256(content)


def load(path: Path, imports: Sequence[str] = ()) -> Any:
    """The model, uncompiled, in Keras's safe mode.

    imports: modules that register layers or models of the user's own.
    Raises SetupError: not a model, a Lambda or unknown layer, a module that cannot be imported.
    """
    sha256(path)
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import keras

    for module in imports:
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever the user's module raises
            raise SetupError(f"--import {module}: {type(error).__name__}: {_short(error)}") from error

    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever its parts raise
        text = _short(error)
        if "lambda" in text.lower():
            raise SetupError(
                f"{path}: holds a Lambda layer, code that a file could smuggle in; rebuild it from plain layers"
            ) from error
        if unknown := re.search(r"Could not locate class '(\w+)'|Unknown layer: '?(\w+)", str(error)):
            raise SetupError(
                f"{path}: holds {unknown[1] or unknown[2]}, a class that Keras does not know; register it with "
                "@keras.saving.register_keras_serializable and name its module with --import"
            ) from error
        if path.suffix != ".keras":
            text += "; written by Keras 2? Load it there and save it anew, or rebuild it and load its weights"
        raise SetupError(f"{path}: Keras cannot load it ({type(error).__name__}: {text})") from error


def _symbolic(shape: tuple[int | None, ...]) -> Any:
    import keras

    return keras.KerasTensor(shape)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def check_shapes(model: Any, path: Path, image_size: int, classes: int) -> None:
    """Raise SetupError unless the model maps [N, size, size, 1] to [N, classes]."""
    wanted = (None, image_size, image_size, 1), (None, classes)
    received = getattr(model, "input_shape", None), getattr(model, "output_shape", None)
    ends = [len(getattr(model, name, None) or [()]) for name in ("inputs", "outputs")]
    if ends != [1, 1]:
        raise SetupError(
            f"{path}: has {ends[0]} inputs and {ends[1]} outputs; the data are single images with one label"
        )
    if received[0] is None:  # subclassed: it does not know its shapes
        with suppress(Exception):  # whatever the user's own code raises on this shape
            received = wanted[0], tuple(model(_symbolic(wanted[0])).shape)
    if received != wanted:
        raise SetupError(f"{path}: maps {received[0]} to {received[1]}; the data needs {wanted[0]} to {wanted[1]}")


def predict_folded_too(
    path: Path, images: npt.NDArray[np.uint8], classes: int, imports: Sequence[str] = ()
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Outputs [N, classes] for uint8 images [N, size, size, 1]: the model's, and with its batch norms folded."""
    inputs = to_input(images)
    pair = _with_folded(path, path.stat().st_mtime_ns, images.shape[1], classes, tuple(imports))
    outputs, folded = (
        np.asarray(each.predict(inputs, batch_size=PREDICT_BATCH, verbose=0), np.float32) for each in pair
    )
    return outputs, folded


@lru_cache(maxsize=1)
def _with_folded(
    path: Path, modified_ns: int, image_size: int, classes: int, imports: tuple[str, ...]
) -> tuple[Any, Any]:
    """The model, and with its batch norms folded: loaded and traced once for all shards of a set."""
    from converters.fold import fold

    model = load(path, imports)
    check_shapes(model, path, image_size, classes)
    return model, fold(as_graph(model, image_size)).model


def as_graph(model: Any, image_size: int) -> Any:
    """The model as a graph of layers: a subclassed one becomes a graph of one opaque layer."""
    import keras

    if isinstance(model, keras.Sequential | keras.Function):
        return model
    image = keras.Input((image_size, image_size, 1))
    return keras.Model(image, model(image))
