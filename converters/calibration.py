"""Calibration: which images, and which ranges the activations take on them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.dataset import Dataset, take
from harness.spec import ModelSpec

Ranges = dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]
BATCH = 4


def choose(data: Dataset, size: int) -> Dataset:
    """At most `size` images, every class in equal number as far as it has them; the same ones every time."""
    rng = np.random.default_rng(0)
    ranked = [
        (rank, label, index)
        for label in np.unique(data.labels)
        for rank, index in enumerate(rng.permutation(np.flatnonzero(data.labels == label)))
    ]
    chosen = np.sort([index for _, _, index in sorted(ranked)[:size]])
    return take(data, chosen)


def parts(data: Dataset) -> Iterator[npt.NDArray[np.uint8]]:
    """The images by BATCH; threads may share the iterator."""
    return iter([data.images[start : start + BATCH] for start in range(0, len(data), BATCH)])


def invoked(interpreter: Any, spec: ModelSpec, pixels: Iterator[npt.NDArray[np.uint8]]) -> Iterator[None]:
    """After each batch of uint8 images that an interpreter with a float input has run."""
    entry = interpreter.get_input_details()[0]["index"]
    shape: tuple[int, ...] = ()
    for part in pixels:
        batch = spec.to_input(part)
        if batch.shape != shape:
            interpreter.resize_tensor_input(entry, batch.shape)
            interpreter.allocate_tensors()
            shape = batch.shape
        interpreter.set_tensor(entry, batch)
        interpreter.invoke()
        yield


def measure(float32: bytes, data: Dataset) -> Ranges:
    """The least and greatest value of every float tensor of a float32 .tflite over a set of images.

    Min-max over the set, not ai-edge-quantizer's moving average, which flips ten times as many answers (FACTS). Each
    core has an interpreter; which images share a batch does not depend on how many there are. The input's range is that
    of all pixels there can be, whichever these images have.
    """
    shared = parts(data)
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        found = [
            future.result() for future in [pool.submit(_measure, float32, data.spec, shared) for _ in range(workers)]
        ]
    ranges = found[0]
    for other in found[1:]:
        for name, (low, high) in other.items():
            _widen(ranges, name, low, high)
    return ranges


def _measure(float32: bytes, spec: ModelSpec, pixels: Iterator[npt.NDArray[np.uint8]]) -> Ranges:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=float32,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    ranges: Ranges = {}
    for _ in invoked(interpreter, spec, pixels):
        for tensor in interpreter.get_tensor_details():
            if tensor["dtype"] is not np.float32:
                continue
            try:
                values = interpreter.tensor(tensor["index"])()
            except ValueError:  # fused away: never computed
                continue
            if values.size:
                _widen(ranges, tensor["name"], values.min().reshape(1), values.max().reshape(1))
            del values  # a view into the interpreter must be gone before it runs again
    low, high = (np.full(1, end, np.float32) for end in spec.input_range)
    ranges[interpreter.get_input_details()[0]["name"]] = low, high
    return ranges


def _widen(ranges: Ranges, name: str, low: npt.NDArray[np.float32], high: npt.NDArray[np.float32]) -> None:
    if name in ranges:
        low, high = np.minimum(low, ranges[name][0]), np.maximum(high, ranges[name][1])
    ranges[name] = low, high
