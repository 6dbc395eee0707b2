"""Calibration: which images, and which ranges the activations take on them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.interpreter import invoked
from harness.artifacts import flatbuffer
from harness.core import cores
from harness.images.dataset import Dataset, take
from harness.images.spec import ModelSpec

AVERAGED = 110

Ranges = dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]


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


def measure(float32: bytes, data: Dataset) -> Ranges:
    """The minimum and maximum of every activation of a float32 .tflite over a set of images, by channel.

    Min-max over the set, not litert-quantizer's moving average, which flips ten times as many answers (FACTS). Each
    core has an interpreter. The input's range is that of all pixels there can be, whichever these images have; a
    tensor's is that of these.
    """
    kept = _all_kept(float32)
    shared = iter(list(data.images))
    ends = (float(data.images.min()), float(data.images.max())) if data.spec.input else data.spec.input_range
    workers = cores.usable()
    with ThreadPoolExecutor(workers) as pool:
        measured = [
            future.result() for future in [pool.submit(_measure, kept, data.spec, ends, shared) for _ in range(workers)]
        ]
    ranges = measured[0]
    for other in measured[1:]:
        for name, (low, high) in other.items():
            _widen(ranges, name, low, high)
    return ranges


def average(float32: bytes, data: Dataset) -> Ranges:
    """The mean over images of every activation's range, [1]: rare values are cut off, the others have finer steps.

    Of at most AVERAGED images.
    """
    chosen = np.linspace(0, len(data) - 1, min(AVERAGED, len(data))).astype(int)
    each = [measure(float32, take(data, chosen[place : place + 1])) for place in range(len(chosen))]
    lows, highs = ({name: [part[name][end] for part in each] for name in each[0]} for end in (0, 1))
    return {
        name: (
            np.mean([low.min(keepdims=True) for low in lows[name]], axis=0),
            np.mean([high.max(keepdims=True) for high in highs[name]], axis=0),
        )
        for name in each[0]
    }


def _all_kept(float32: bytes) -> bytes:
    """The model with every activation of its main graph an output.

    So the delegate runs it, twice as fast as an interpreter that keeps all tensors, which does without.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = flatbuffer.read(float32)
    graph = model.subgraphs[0]
    computed = dict.fromkeys(index for operator in graph.operators for index in operator.outputs)
    graph.outputs = [index for index in computed if graph.tensors[index].type == schema.TensorType.FLOAT32]
    model.signatureDefs = []
    return flatbuffer.pack(model)


def _measure(kept: bytes, spec: ModelSpec, ends: tuple[float, float], images: Iterator[npt.NDArray[Any]]) -> Ranges:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=kept, num_threads=1)
    entry, outputs = interpreter.get_input_details()[0], interpreter.get_output_details()
    ranges: Ranges = {}
    for _ in invoked(interpreter, spec, images):
        for tensor in outputs:
            values = interpreter.tensor(tensor["index"])()
            if values.size:
                channels = values.reshape(-1, values.shape[-1] if values.ndim > 1 else 1)
                _widen(ranges, tensor["name"], channels.min(axis=0), channels.max(axis=0))
                del channels
            del values  # a view into the interpreter must be gone before it runs again
    low, high = (np.full(entry["shape"][-1], end, np.float32) for end in ends)
    ranges[entry["name"]] = low, high
    return ranges


def _widen(ranges: Ranges, name: str, low: npt.NDArray[np.float32], high: npt.NDArray[np.float32]) -> None:
    if name in ranges:
        low, high = np.minimum(low, ranges[name][0]), np.maximum(high, ranges[name][1])
    ranges[name] = low, high
