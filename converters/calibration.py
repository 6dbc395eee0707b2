"""Calibration: which images, and which ranges the activations take on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import tee
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
    kept, shared = _all_kept(float32), iter(list(data.images))
    workers = cores.usable()
    with ThreadPoolExecutor(workers) as pool:
        parts = [pool.submit(lambda: _widest(_of_images(kept, data.spec, shared))) for _ in range(workers)]
        return _widest(part.result() for part in parts)


def average(float32: bytes, data: Dataset) -> Ranges:
    """The mean over images of every activation's range, [1]: rare values are cut off, the others have finer steps.

    Of at most AVERAGED images.
    """
    chosen = np.linspace(0, len(data) - 1, min(AVERAGED, len(data))).astype(int)
    lows: dict[str, list[npt.NDArray[np.float32]]] = {}
    highs: dict[str, list[npt.NDArray[np.float32]]] = {}
    for ranges in _of_images(_all_kept(float32), data.spec, iter(take(data, chosen).images)):
        for name, (low, high) in ranges.items():
            lows.setdefault(name, []).append(low.min(keepdims=True))
            highs.setdefault(name, []).append(high.max(keepdims=True))
    return {name: (np.mean(lows[name], axis=0), np.mean(highs[name], axis=0)) for name in lows}


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


def _of_images(kept: bytes, spec: ModelSpec, images: Iterator[npt.NDArray[Any]]) -> Iterator[Ranges]:
    """The ranges on each image. The input's is that of all pixels there can be; a tensor's is its own."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=kept, num_threads=1)
    entry, outputs = interpreter.get_input_details()[0], interpreter.get_output_details()
    images, fed = tee(images)
    for image, _ in zip(images, invoked(interpreter, spec, fed), strict=True):
        ranges: Ranges = {}
        for tensor in outputs:
            values = interpreter.tensor(tensor["index"])()
            if values.size:
                channels = values.reshape(-1, values.shape[-1] if values.ndim > 1 else 1)
                ranges[tensor["name"]] = channels.min(axis=0), channels.max(axis=0)
                del channels
            del values  # a view into the interpreter must be gone before it runs again
        ends = (float(image.min()), float(image.max())) if spec.input else spec.input_range
        low, high = (np.full(entry["shape"][-1], end, np.float32) for end in ends)
        ranges[entry["name"]] = low, high
        yield ranges


def _widest(parts: Iterable[Ranges]) -> Ranges:
    """The smallest range that holds all of them."""
    widest: Ranges = {}
    for part in parts:
        for name, (low, high) in part.items():
            if name in widest:
                low, high = np.minimum(low, widest[name][0]), np.maximum(high, widest[name][1])
            widest[name] = low, high
    return widest
