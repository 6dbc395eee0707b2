"""Calibration: which images, and which ranges the activations take on them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.dataset import Dataset, take

Ranges = dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]
BATCH = 20


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


def invoked(interpreter: Any, data: Dataset) -> Iterator[None]:
    """After each batch of images that an interpreter with a float input has run."""
    entry = interpreter.get_input_details()[0]["index"]
    shape: tuple[int, ...] = ()
    for batch in data.batches(BATCH):
        if batch.shape != shape:
            interpreter.resize_tensor_input(entry, batch.shape)
            interpreter.allocate_tensors()
            shape = batch.shape
        interpreter.set_tensor(entry, batch)
        interpreter.invoke()
        yield


def measure(float32: bytes, data: Dataset) -> Ranges:
    """The least and greatest value of every float tensor of a float32 .tflite over a set of images.

    Min-max over the set, not ai-edge-quantizer's moving average, which flips ten times as many answers (FACTS).
    The input's are those that pixels can take, whichever these images have.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=float32,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    ranges: Ranges = {}
    for _ in invoked(interpreter, data):
        for tensor in interpreter.get_tensor_details():
            if tensor["dtype"] is not np.float32:
                continue
            try:
                values = interpreter.get_tensor(tensor["index"])
            except ValueError:  # fused away: never computed
                continue
            low, high = values.min().reshape(1), values.max().reshape(1)
            name = tensor["name"]
            if name in ranges:
                low, high = np.minimum(low, ranges[name][0]), np.maximum(high, ranges[name][1])
            ranges[name] = low, high
    low, high = (np.full(1, end, np.float32) for end in data.spec.input_range)
    ranges[interpreter.get_input_details()[0]["name"]] = low, high
    return ranges
