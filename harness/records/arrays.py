"""A record's arrays: what they are called and what they must be. Nothing else builds or takes apart their names.

names, labels, slices, label_names, truths, class_names, model_outputs, reference, folded, input_means; <cell>.<name> of
each cell; flipped.index, flipped.images; latency.<process>.<name> of each process, or latency.<process>.<cell>.<name>.
docs/formats.md says what each holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.artifacts.manifest import Quantization
from harness.artifacts.outputs import FloatArray, as_classes, dequantize
from harness.core import shapes
from harness.core.cell import Cell
from harness.core.errors import SetupError
from harness.core.npz import Array
from harness.images.spec import UNLABELLED, Output, OutputKind
from harness.judge.labels import LabelsOutput
from harness.judge.predictions import Predictions
from harness.judge.tensors import TensorOutput
from harness.run.latency_run import LatencyRun, latency_run

INDEX, IMAGES = "flipped.index", "flipped.images"
_LATENCY = "latency"
_MEAN_TOLERANCE = 1e-5  # of an image's mean, summed up in another order

# What each array must be: kinds of its dtype as NumPy has them, and dimensions.
_OF_IMAGES = {
    "names": ("U", 1),
    "labels": ("iu", 1),
    "slices": ("U", 1),
    "label_names": ("U", 1),
    "truths": ("iu", 2),
    "class_names": ("U", 1),
    "model_outputs": ("U", 0),
    "reference": ("f", 2),
    "folded": ("f", 2),
    "input_means": ("f", 1),
    INDEX: ("iu", 1),
    IMAGES: ("u", 4),
}
_OF_CELL = {
    "outputs": ("fiu", 2),
    "host_outputs": ("fiu", 2),
    "scale": ("f", 0),
    "zero_point": ("iu", 0),
    "input_means": ("f", 1),
    "input_scale": ("f", 0),
    "input_zero_point": ("iu", 0),
    "counts": ("iu", 2),
    "counts_tool": ("U", 0),
}


def image_arrays(names: Sequence[str], labels: Any, input_means: FloatArray) -> dict[str, Array]:
    """input_means: the mean of each image as float input [N]."""
    return {"names": np.array(names, np.str_), "labels": np.asarray(labels, np.int64), "input_means": input_means}


def slice_arrays(slices: npt.NDArray[np.str_]) -> dict[str, Array]:
    """The slice of each image [N]."""
    return {"slices": slices}


def label_arrays(names: Sequence[str], truths: npt.NDArray[np.int64]) -> dict[str, Array]:
    """truths: whether each image has each of several labels [N, labels]; UNLABELLED if that is not known."""
    return {"label_names": np.array(names, np.str_), "truths": truths}


def class_arrays(class_names: Sequence[str]) -> dict[str, Array]:
    return {"class_names": np.array(class_names, np.str_)}


def output_arrays(outputs: tuple[Output, ...]) -> dict[str, Array]:
    """Of a model that gives others than classes; empty for a classifier."""
    return {"model_outputs": np.array(shapes.encode(list(outputs)).decode())} if outputs else {}


def reference_arrays(outputs: FloatArray, folded: FloatArray | None) -> dict[str, Array]:
    return {"reference": outputs} | ({} if folded is None else {"folded": folded})


def answer_arrays(
    cell: Cell, answers: Mapping[str, Array], takes: Quantization, host_outputs: Array | None = None
) -> dict[str, Array]:
    """A worker's answers, and what this machine knows. takes: the input of the variant, by its manifest."""
    known = {"input_scale": np.array(takes.scale), "input_zero_point": np.array(takes.zero_point)}
    if host_outputs is not None:
        known["host_outputs"] = host_outputs
    return {f"{cell}.{name}": array for name, array in {**answers, **known}.items()}


def latency_arrays(process: int, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """What one process measured. process: counted from 1."""
    return {f"{_LATENCY}.{process}.{name}": array for name, array in arrays.items()}


def count_arrays(cell: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """A cell's instructions and memory accesses, and what counted them."""
    return {f"{cell}.{name}": array for name, array in arrays.items()}


def flipped_arrays(index: npt.NDArray[np.int64], images: Array) -> dict[str, Array]:
    """The images that some cell answers unlike the reference: their numbers, and uint8 [n, H, W, channels]."""
    return {INDEX: index, IMAGES: images}


class RecordArrays:
    """Typed access to arrays by their names, in memory or on disk. Every access raises SetupError for an array that is
    missing, or is not what it must be."""

    def __init__(self, stored: Mapping[str, Array], where: str = "arrays") -> None:
        """where: what an error calls them."""
        self.stored, self._where = stored, where

    @property
    def names(self) -> npt.NDArray[np.str_]:
        names: npt.NDArray[np.str_] = self._get("names")
        return names

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        labels: npt.NDArray[np.int64] = self._get("labels")
        return labels

    @property
    def slices(self) -> npt.NDArray[np.str_] | None:
        """The slice of each image [N]. None if they are not divided."""
        return self._get("slices") if "slices" in self.stored else None

    @property
    def reference(self) -> FloatArray:
        """The Keras model's outputs, [N, numbers]; of a classifier its classes' probabilities."""
        outputs: FloatArray = self._get("reference")
        return outputs

    @property
    def class_names(self) -> tuple[str, ...]:
        classes = self.reference[:, self._classes].shape[1]
        classes = 2 if self.outputs and classes == 1 else classes
        if "class_names" not in self.stored:
            return tuple(map(str, range(classes)))
        if len(names := tuple(self._get("class_names").tolist())) != classes:
            raise SetupError(f"{self._where}: {len(names)} class names for {classes} outputs; run harness check again")
        return names

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Those of a model that gives others than classes; empty for a classifier."""
        if "model_outputs" not in self.stored:
            return ()
        return shapes.decode(str(self._get("model_outputs")), tuple[Output, ...], self._where)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Those that answered."""
        return tuple(Cell.parse(name.removesuffix(".outputs")) for name in self.stored if name.endswith(".outputs"))

    def raw_answers(self, cell: Cell) -> Array:
        """Outputs as the interpreter stored them, [N, numbers]."""
        outputs: Array = self._get(f"{cell}.outputs")
        return outputs

    def answers(self, cell: Cell) -> FloatArray:
        """Classes' probabilities as real numbers, [N, classes]; no classes if the model gives none."""
        return self._of_classes(self._real(cell, "outputs"))

    @property
    def flipped(self) -> dict[int, Array]:
        """Images that some cell answers unlike the reference, by their number: uint8 [H, W, channels]."""
        return dict(zip(self._get(INDEX).tolist(), self._get(IMAGES), strict=False))

    def latency_runs(self) -> list[LatencyRun]:
        """What was measured, process by process."""
        return [
            latency_run(arrays, f"{self._where}: process {number}")
            for number, arrays in self.latency_by_process().items()
        ]

    def latency_by_process(self) -> dict[int, dict[str, Array]]:
        """The arrays of each process, by its number."""
        runs: dict[int, dict[str, Array]] = {}
        for name in self.stored:
            group, _, rest = name.partition(".")
            process, _, key = rest.partition(".")
            if group == _LATENCY and process.isdecimal():
                runs.setdefault(int(process), {})[key] = self.stored[name]
        return dict(sorted(runs.items()))

    def counts(self, cell: Cell) -> tuple[Array, str] | None:
        """Instructions and memory accesses [inferences, worker.EVENTS], and what counted them. None if nothing did."""
        if f"{cell}.counts" not in self.stored:
            return None
        return self._get(f"{cell}.counts"), str(self._get(f"{cell}.counts_tool"))

    def predictions(self) -> Predictions:
        """All that was answered."""
        cells, reference = self.cells, self.reference
        real = {cell: self._real(cell, "outputs") for cell in cells}
        return Predictions(
            labels=self.labels,
            reference=self._of_classes(reference),
            folded=self._of_classes(self._get("folded")) if "folded" in self.stored else None,
            cells={cell: self._of_classes(numbers) for cell, numbers in real.items()},
            tensors=tuple(
                TensorOutput(name, reference[:, part], {cell: numbers[:, part] for cell, numbers in real.items()})
                for name, part in self._parts("tensor").items()
            ),
            input_means=self._get("input_means") if "input_means" in self.stored else None,
            given_means={cell: self._given_means(cell) for cell in cells if f"{cell}.input_means" in self.stored},
            host={
                cell: (self._of_classes(self._real(cell, "host_outputs")), float(self._get(f"{cell}.scale")))
                for cell in cells
                if f"{cell}.host_outputs" in self.stored
            },
            class_names=self.class_names,
            slices=self.slices,
            labels_output=self._labels_output(reference, real),
        )

    def _labels_output(self, reference: FloatArray, real: Mapping[Cell, FloatArray]) -> LabelsOutput | None:
        """None if the model gives no labels."""
        for part in self._parts("labels").values():
            expected = reference[:, part]
            names = self._get("label_names").tolist() if "label_names" in self.stored else range(expected.shape[1])
            unknown = np.full(expected.shape, UNLABELLED)
            truths = self._get("truths") if "truths" in self.stored else unknown
            return LabelsOutput(
                tuple(map(str, names)), truths, expected, {cell: numbers[:, part] for cell, numbers in real.items()}
            )
        return None

    def _real(self, cell: Cell, name: str) -> FloatArray:
        scale, zero_point = float(self._get(f"{cell}.scale")), int(self._get(f"{cell}.zero_point"))
        return dequantize(self._get(f"{cell}.{name}"), scale, zero_point)

    @property
    def _classes(self) -> slice:
        """Which numbers of an image are classes; none if the model gives none."""
        return next(iter(self._parts("classes").values()), slice(0, 0)) if self.outputs else slice(None)

    def _of_classes(self, numbers: FloatArray) -> FloatArray:
        return as_classes(numbers[:, self._classes])

    def _parts(self, kind: OutputKind) -> dict[str, slice]:
        """Which numbers of an image are those of the outputs of a kind, by name."""
        parts, start = {}, 0
        for output in self.outputs:
            if output.kind == kind:
                parts[output.name] = slice(start, start + output.size)
            start += output.size
        return parts

    def _given_means(self, cell: Cell) -> tuple[FloatArray, float]:
        scale, zero_point = float(self._get(f"{cell}.input_scale")), int(self._get(f"{cell}.input_zero_point"))
        return dequantize(self._get(f"{cell}.input_means"), scale, zero_point), _MEAN_TOLERANCE + 0.51 * scale

    def _get(self, name: str) -> Any:
        expected = _expected(name)
        if expected is None or name not in self.stored:
            raise SetupError(f"{self._where}: expected {name!r}, there is none; run harness check again")
        array = self.stored[name]
        kinds, dimensions = expected
        if array.dtype.kind not in kinds or array.ndim != dimensions:
            raise SetupError(
                f"{self._where}: {name} is {array.dtype} with {array.ndim} dimensions, expected {dimensions} and kind "
                f"{' or '.join(kinds)}; run harness check again"
            )
        return array


def _expected(name: str) -> tuple[str, int] | None:
    """What an array of a name must be. None if no array is called so."""
    return _OF_IMAGES.get(name) or _OF_CELL.get(name.rpartition(".")[2])
