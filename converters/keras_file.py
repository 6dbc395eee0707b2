"""The Keras model in a file, opened safely, in float32, whichever Keras wrote it. Runs where Keras is."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import numpy as np

from converters import keras2, keras_config
from harness.artifacts import model_file, reference
from harness.core.errors import SetupError

REASON_CHARACTERS = 400
LARGEST_BYTES = 2**31 - 2**20  # of weights as float32: a flatbuffer's offsets have 32 bits
CONFIG, METADATA = "config.json", "metadata.json"


@dataclass(frozen=True)
class Opened:
    """A model, uncompiled, and notes on what was changed to load it."""

    model: Any
    notes: tuple[str, ...]
    input_dtype: str | None = None  # of the input, as the file says


def load(path: Path, imports: Sequence[str] = ()) -> Opened:
    """The model in Keras's safe mode.

    imports: modules that register layers or models of the user's own.
    Raises SetupError: not a model, a Lambda or unknown layer, a module that cannot be imported, weights that are not
    finite, or more of them than a .tflite file can hold.
    """
    reference.model_sha256(path)
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import keras

    for module in imports:
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever the user's module raises
            raise SetupError(f"--import {module}: {type(error).__name__}: {_short(error)}") from error

    version = ""
    try:
        config, version = _config(path)
        is_keras_2 = not version.startswith("3") if path.suffix != ".keras" else version.startswith("2")
        repaired, notes = keras_config.repair(config, is_keras_2=is_keras_2)
        with _with_config(path, config, repaired) as file:
            model = keras.saving.load_model(
                file, compile=False, safe_mode=True, custom_objects=keras2.objects() if is_keras_2 else None
            )
    except SetupError:
        raise
    except Exception as error:  # Keras raises whatever its parts raise
        raise SetupError(f"{path}: {_problem(error, path, version)}") from error
    check_weights(model, path)
    return Opened(model, notes, keras_config.input_dtype(config))


def check_weights(model: Any, path: Path, largest_bytes: int = LARGEST_BYTES) -> None:
    """Raise SetupError where a model's weights do not fit into a .tflite file or are not finite."""
    size = 4 * model.count_params()
    if size > largest_bytes:
        raise SetupError(
            f"{path}: its weights are {size / 2**30:.2f} GiB as float32; a .tflite file holds less than 2 GiB: make "
            "the network smaller, or convert it in parts"
        )
    broken = [
        weight.path for weight in model.weights if _is_float(weight) and not np.isfinite(np.asarray(weight)).all()
    ]
    if broken:
        raise SetupError(
            f"{path}: NaN or infinity in {len(broken)} of {len(model.weights)} weights, the first of them "
            f"{broken[0]}: training diverged; take an earlier checkpoint"
        )


def _is_float(weight: Any) -> bool:
    return "float" in str(weight.dtype)


def _config(path: Path) -> tuple[dict[str, Any], str]:
    """A file's config and the version of the Keras that wrote it, empty if it does not say."""
    if path.suffix == ".keras":
        with ZipFile(path) as archive:
            version = json.loads(archive.read(METADATA)) if METADATA in archive.namelist() else {}
            return json.loads(archive.read(CONFIG)), str(version.get("keras_version", ""))
    import h5py

    with h5py.File(path) as file:
        if "model_config" not in file.attrs:
            raise SetupError(f"{path}: is weights without the network; expected a Keras model: {model_file.REBUILD}")
        return json.loads(_decoded(file.attrs["model_config"])), _decoded(file.attrs.get("keras_version", ""))


def _decoded(text: Any) -> str:
    return text.decode() if isinstance(text, bytes) else str(text)


@contextmanager
def _with_config(path: Path, config: dict[str, Any], repaired: dict[str, Any]) -> Iterator[Path]:
    """The file itself, or a copy of it with another config."""
    if repaired is config:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="harness-model-") as folder:
        copy = Path(folder) / path.name
        if path.suffix == ".keras":
            with ZipFile(path) as old, ZipFile(copy, "w", ZIP_STORED) as new:
                for name in old.namelist():
                    if name != CONFIG:
                        with old.open(name) as source, new.open(name, "w", force_zip64=True) as target:
                            shutil.copyfileobj(source, target)
                new.writestr(CONFIG, json.dumps(repaired))
        else:
            import h5py

            shutil.copyfile(path, copy)
            with h5py.File(copy, "r+") as file:
                del file.attrs["model_config"]
                file.attrs["model_config"] = json.dumps(repaired)
        yield copy


def _problem(error: Exception, path: Path, version: str) -> str:
    """In words, why Keras does not load a file, and what to do."""
    text = _short(error)
    if isinstance(error, keras2.UnknownOperationError):
        return (
            f"holds a TensorFlow function as a layer ({text}) that is not among those that can be loaded safely; "
            "rebuild the model in Keras 3 and give it the weights of this one: load_weights"
        )
    if "lambda" in text.lower():
        return "holds a Lambda layer, code that a file could smuggle in; rebuild it from plain layers"
    if unknown := re.search(r"Could not locate class '(\w+)'|Unknown layer: '?(\w+)", str(error)):
        if path.suffix != ".keras" and version.startswith("3"):
            return (
                f"holds {unknown[1] or unknown[2]}, which Keras does not find from an .h5 file, as those hold layers "
                "alone: save the model by model.save('NAME.keras'), or if it is a class of your own, name its module "
                "with --import"
            )
        return (
            f"holds {unknown[1] or unknown[2]}, a class that Keras does not know; register it with "
            "@keras.saving.register_keras_serializable and name its module with --import"
        )
    if path.suffix != ".keras" and not version.startswith("3"):
        text += "; written by Keras 2? Load it there and save it anew, or rebuild it and load its weights"
    elif version.startswith("2"):
        text += (
            f"; written by Keras {version}: in that one's TensorFlow ('pip install tensorflow~={version}'), load it "
            "by tf.keras.models.load_model and model.save('NAME.h5')"
        )
    elif version:
        text += f"; written by Keras {version}"
    return f"Keras cannot load it ({type(error).__name__}: {text})"


def _short(error: Exception) -> str:
    """An error on one line: where it is too long, without its middle, as the reason is often the end."""
    text = " ".join(str(error).split())
    half = REASON_CHARACTERS // 2
    return text if len(text) <= REASON_CHARACTERS else f"{text[:half]} ... {text[-half:]}"
