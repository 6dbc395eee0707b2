"""Inputs and outputs of a .tflite as its bytes declare them, for runtimes that are told nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.artifacts import flatbuffer

_TYPES = {0: "float32", 2: "int32", 3: "uint8", 7: "int16", 9: "int8"}  # of the schema's TensorType


@dataclass(frozen=True)
class ModelTensor:
    """real = (stored - zero_point) * scale; the scale is 0.0 if the tensor is float. place: in the first signature."""

    name: str  # in the first signature, and else its own
    place: int
    dtype: str
    shape: tuple[int, ...]
    scale: float
    zero_point: int

    def quantize(self, images: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """As worker.Interpreter.quantize does, without the batch's axis."""
        if not self.scale:
            return images.astype(self.dtype)
        limits = np.iinfo(self.dtype)
        stored = np.round(images / np.float32(self.scale) + np.float32(self.zero_point))
        return np.clip(stored, limits.min, limits.max).astype(self.dtype)


@dataclass(frozen=True)
class ModelTensors:
    """In the order of the graph."""

    inputs: tuple[ModelTensor, ...]
    outputs: tuple[ModelTensor, ...]

    def numbers(self, outputs: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """All outputs of an inference, flat, in one row: as stored, of several outputs as real numbers."""
        if len(outputs) == 1:
            return outputs[0]
        rows = zip(outputs, self.outputs, strict=True)
        real = [(row.astype(np.float32) - to.zero_point) * np.float32(to.scale or 1) for row, to in rows]
        return np.concatenate(real)

    @property
    def quantization(self) -> tuple[float, int]:
        """Scale and zero point of `numbers`."""
        return (self.outputs[0].scale, self.outputs[0].zero_point) if len(self.outputs) == 1 else (0.0, 0)


@cache
def read(content: bytes) -> ModelTensors:
    model = flatbuffer.read(content)
    graph = model.subgraphs[0]
    signature = (model.signatureDefs or [None])[0]

    def described(index: int, place: int, side: str) -> ModelTensor:
        tensor, name = graph.tensors[index], None
        for position, entry in enumerate(getattr(signature, side, None) or []):
            if entry.tensorIndex == index:
                name, place = entry.name, position
        quantization = tensor.quantization
        scale, zero_point = (
            [] if quantization is None or values is None else list(values)
            for values in (getattr(quantization, "scale", None), getattr(quantization, "zeroPoint", None))
        )
        return ModelTensor(
            name=(name or tensor.name).decode(),
            place=place,
            dtype=_TYPES.get(tensor.type, "another type"),
            shape=tuple(int(size) for size in tensor.shape),
            scale=float(scale[0]) if scale else 0.0,
            zero_point=int(zero_point[0]) if scale and zero_point else 0,
        )

    return ModelTensors(
        *(tuple(described(index, place, side) for place, index in enumerate(getattr(graph, side)))
          for side in ("inputs", "outputs"))
    )  # fmt: skip
