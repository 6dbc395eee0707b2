"""What a file or folder is that was named as the Keras model and is none, and what to do. Needs no Keras."""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile, ZipFile, is_zipfile

HDF5 = b"\x89HDF\r\n\x1a\n"
TFLITE = slice(4, 8), b"TFL3"
REBUILD = "build the network in code, give it these weights with load_weights, and model.save('NAME.keras')"
REWRITE = (
    "load it with the TensorFlow that wrote it, pip install tensorflow==2.15.1 as a rule, by "
    "tf.keras.models.load_model, and model.save('NAME.h5')"
)
CONVERTED = "the Keras model that it was made from is needed"
BY_SUFFIX = {
    ".onnx": ("an ONNX model", CONVERTED),
    ".pb": ("a TensorFlow graph", "name the Keras model; if this is a SavedModel, " + REWRITE),
    ".pt": ("a PyTorch model", "rebuild it in Keras, with its weights"),
    ".pth": ("a PyTorch model", "rebuild it in Keras, with its weights"),
    ".safetensors": ("weights without the network", "build the network in Keras, with these weights, and save it"),
    ".mlmodel": ("a Core ML model", CONVERTED),
    ".mlpackage": ("a Core ML model", CONVERTED),
    ".pkl": ("a pickle, which can run any code", "save the model by model.save('NAME.keras')"),
    ".joblib": ("a pickle, which can run any code", "save the model by model.save('NAME.keras')"),
    ".json": ("a network without weights", "give it its weights with load_weights, and model.save('NAME.keras')"),
    ".npz": ("weights without the network", REBUILD),
    ".index": ("a TensorFlow checkpoint, weights without the network", REBUILD),
    ".ckpt": ("a TensorFlow checkpoint, weights without the network", REBUILD),
}


def describe(path: Path) -> str | None:
    """What it is and what to do, for what is no Keras model. None if it may be one, or if there is no such file."""
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        checkpoint = path.suffix in ("", ".ckpt") and path.with_name(path.name + ".index").is_file()
        return _text(*BY_SUFFIX[".ckpt"]) if checkpoint else None
    with path.open("rb") as file:
        start = file.read(8)
    if start[TFLITE[0]] == TFLITE[1]:
        return _text("a .tflite file, a variant", CONVERTED)
    if is_zipfile(path):
        try:
            with ZipFile(path) as archive:
                names = archive.namelist()
        except (BadZipFile, OSError):
            return None
        if "config.json" in names:
            return None
        if any(name.endswith("data.pkl") for name in names):
            return _text(*BY_SUFFIX[".pt"])
        if names and all(name.endswith(".npy") for name in names):
            return _text(*BY_SUFFIX[".npz"])
        return _text("an archive without config.json", "expected what Keras 3's model.save('NAME.keras') writes")
    suffix = ".index" if ".data-0" in path.name else path.suffix.lower()
    return _text(*BY_SUFFIX[suffix]) if suffix in BY_SUFFIX and not start.startswith(HDF5) else None


def _folder(path: Path) -> str:
    if (path / "saved_model.pb").is_file():
        return _text("a SavedModel folder", REWRITE)
    if (path / "checkpoint").is_file() or any(path.glob("*.index")):
        return _text(*BY_SUFFIX[".ckpt"])
    if path.suffix.lower() == ".mlpackage":
        return _text(*BY_SUFFIX[".mlpackage"])
    return _text("a folder", "name the model's file in it, *.keras or *.h5")


def _text(what: str, way_out: str) -> str:
    return f"is {what}; expected a Keras model: {way_out}"
