"""Sets for models that take no pictures: an .npz file of NumPy's, or Parquet with lists of numbers.

Arrays, or columns: `inputs` [N, ...], which may have the name of the model's input instead; `labels` [N], classes'
numbers or names, not in an unlabelled set; and, optionally, `names` [N]. Others of N texts or numbers are columns for
slices. Each name may be in the singular.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.core import npz
from harness.core.errors import SetupError
from harness.images import parquet
from harness.images.spec import UNLABELLED, ModelSpec

SUFFIX = ".npz"
INPUTS, LABELS, NAMES = "inputs", "labels", "names"
_PLURALS = {"input": INPUTS, "label": LABELS, "name": NAMES}
Array = npt.NDArray[Any]


class Tensors:
    """A source of tensors (harness.images.shards.Source), held in memory. Raises SetupError: damaged, other shapes or
    types than the model takes, NaN, labels beyond the classes, no examples."""

    def __init__(self, path: Path, spec: ModelSpec, *, labelled: bool = True) -> None:
        self.path = path
        self.bad: list[str] = []
        self.left_out: tuple[str, ...] = ()
        if spec.input is None:
            raise SetupError(
                f"{path}: a file of tensors, the variants are of {spec.images}; name a folder of images, or put "
                'input = "tensor" into the model\'s .toml file and convert again'
            )
        self._arrays = {_PLURALS.get(name, name): array for name, array in read(path).items()}
        name = next((name for name in (INPUTS, spec.input.name) if name in self._arrays), None)
        if name is None:
            raise SetupError(
                f"{path}: has {', '.join(sorted(self._arrays)[:8]) or 'nothing'}; expected {INPUTS}, or "
                f"{spec.input.name}, of [N, {', '.join(map(str, spec.shape))}]"
            )
        self._inputs = _numbers(self._arrays[name], spec, f"{path}: {name}")
        self.images = len(self._inputs)
        for other, array in self._arrays.items():
            if not array.ndim or len(array) != self.images:
                raise SetupError(f"{path}: {other} is {list(array.shape)}, {name} has {self.images} examples")
        self._labels = _labels(self._arrays.get(LABELS), self.images, spec, path) if labelled else None
        self._names = self.column(NAMES) if NAMES in self._arrays else [f"{path.stem}/{n}" for n in range(self.images)]
        if len(set(self._names)) < self.images:
            raise SetupError(f"{path}: {NAMES} has the same name twice; expected names that differ")

    def names(self) -> Iterator[str]:
        return iter(self._names)

    def column(self, name: str) -> list[str]:
        """The texts of a column."""
        return [
            "" if text is None else str(text) for text in self._arrays[name].reshape(self.images, -1)[:, 0].tolist()
        ]

    def array(self, name: str, shape: tuple[int, ...]) -> Array:
        """An array of numbers of this shape for each example. Raises SetupError."""
        array = self._arrays.get(name)
        expected = f"expected {name} of [{self.images}, {', '.join(map(str, shape))}]"
        if array is None or array.dtype.kind not in "fiub" or array.shape[1:] != shape:
            is_ = "there is none" if array is None else f"it is {array.dtype} {list(array.shape)}"
            raise SetupError(f"{self.path}: {expected}, {is_}")
        return array

    @property
    def columns(self) -> list[str]:
        """Those that are neither the inputs nor their names."""
        return sorted(name for name, array in self._arrays.items() if array.ndim == 1 and name not in (NAMES, INPUTS))

    def entries(self) -> Iterator[tuple[str, int, bytes]]:
        labels = [UNLABELLED] * self.images if self._labels is None else self._labels
        for name, label, tensor in zip(self._names, labels, self._inputs, strict=True):
            yield name, label, np.asarray(tensor, np.float32).tobytes()


def read(path: Path) -> Mapping[str, Array]:
    """The arrays of a file. Raises SetupError."""
    if parquet.files(path):
        return parquet.arrays(parquet.files(path))
    if path.suffix != SUFFIX:
        raise SetupError(f"{path}: the model takes tensors; expected a {SUFFIX} or {parquet.SUFFIX} file with {INPUTS}")
    try:
        with path.open("rb") as file:
            return npz.read(file, str(path))
    except OSError as error:
        raise SetupError(f"{path}: expected a file of tensors ({error.strerror})") from error


def _numbers(array: Array, spec: ModelSpec, where: str) -> Array:
    """The inputs, which become float32 one by one."""
    expected = f"[N, {', '.join(map(str, spec.shape))}]"
    if array.dtype.kind not in "fiub":
        raise SetupError(f"{where} is {array.dtype}; expected numbers of {expected}")
    if not array.size and not len(array):
        raise SetupError(f"{where}: no examples; expected {expected}")
    if array.shape[1:] != spec.shape and array.ndim == 2 and array.shape[1] == prod(spec.shape):
        array = array.reshape(len(array), *spec.shape)  # of Parquet, whose lists may be flat
    if array.shape[1:] != spec.shape:
        raise SetupError(f"{where} is {list(array.shape)}; the model takes {expected}")
    for part in np.array_split(array, max(1, array.nbytes >> 24)):
        with np.errstate(over="ignore"):
            finite = np.isfinite(part.astype(np.float32)).reshape(len(part), -1).all(axis=1)
        if not finite.all():
            raise SetupError(f"{where}: NaN or infinity in {(~finite).sum()} examples; expected finite float32 numbers")
    return array


def _labels(array: Array | None, count: int, spec: ModelSpec, path: Path) -> list[int] | None:
    """Each example's class. None if the file says none."""
    if array is None:
        return None
    if array.shape not in ((count,), (count, 1)) or array.dtype.kind not in "iuU":
        raise SetupError(
            f"{path}: {LABELS} is {array.dtype} {list(array.shape)}; expected [{count}], classes' numbers or names"
        )
    labels = []
    for text in array.reshape(-1).tolist():
        label = spec.label(str(text))
        if label is None:
            raise SetupError(f"{path}: {LABELS} says class {text}; {spec.nearest(str(text))}")
        labels.append(label)
    return labels
