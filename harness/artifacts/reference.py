"""The reference: the Keras model's outputs on a dataset, computed once and stored by the hashes of both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from zipfile import is_zipfile

import numpy as np
import numpy.typing as npt

from harness.artifacts import model_file
from harness.core import npz, shapes
from harness.core.errors import SetupError
from harness.core.files import sha256, write_atomic
from harness.images.spec import ModelSpec


@dataclass(frozen=True)
class Reference:
    """outputs: float32 probabilities [N, classes] of the model on the dataset, in the dataset's order; where it gives
    others than classes, the numbers of all its outputs, one output after the other, [N, numbers].

    folded: those of the model with its batch norms folded, None if they were not computed.
    """

    outputs: npt.NDArray[np.float32]
    model_sha256: str
    data_sha256: str
    spec: ModelSpec
    folded: npt.NDArray[np.float32] | None = None


def model_sha256(path: Path) -> str:
    """The hash of a model file. Raises SetupError: no such file, neither a .keras archive nor an .h5 file."""
    if other := model_file.describe(path):
        raise SetupError(f"{path}: {other}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SetupError(f"{path}: expected a .keras model; {error.strerror}") from error
    is_hdf5 = content.startswith(model_file.HDF5)
    if not is_hdf5 and not is_zipfile(path):
        raise SetupError(f"{path}: not a .keras file (expected the archive that Keras 3's model.save writes)")
    if is_hdf5 != (path.suffix in (".h5", ".hdf5")):
        raise SetupError(f"{path}: {'an HDF5 file' if is_hdf5 else 'a .keras archive'} by another name; rename it")
    return sha256(content)


def stored(store: Path, model_sha256: str, data_sha256: str, images: int, takes: ModelSpec) -> Reference | None:
    """The reference that the folder holds for a model and a dataset, whose images were read by this spec. None if it
    has none."""
    reference = read(_path(store, model_sha256, data_sha256))
    expected = model_sha256, data_sha256, (images, takes.width)
    if reference and (reference.model_sha256, reference.data_sha256, reference.outputs.shape) == expected:
        return reference if reference.spec.same_input(takes) else None
    return None


def store(reference: Reference, folder: Path) -> None:
    """Write a reference into the folder. Raises SetupError."""
    arrays = {
        "outputs": reference.outputs,
        "model_sha256": reference.model_sha256,
        "data_sha256": reference.data_sha256,
        "spec": shapes.encode(reference.spec).decode(),
        **({} if reference.folded is None else {"folded": reference.folded}),
    }
    path = _path(folder, reference.model_sha256, reference.data_sha256)
    write_atomic(path, npz.encode(arrays, compress=False))


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
    """A stored reference. None if it is missing or damaged, so that it is computed again."""
    try:
        with path.open("rb") as file:
            arrays = npz.read(file, str(path))
        hashes = str(arrays["model_sha256"]), str(arrays["data_sha256"])
        spec = shapes.decode(str(arrays["spec"]), ModelSpec, str(path))
        return Reference(arrays["outputs"], *hashes, spec, arrays.get("folded"))
    except (OSError, KeyError, SetupError):
        return None
