"""A .tflite file run on images, one at a time, as apps do: a file's batch may be fixed at one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.artifacts import outputs
from harness.images.dataset import Dataset
from harness.images.spec import ModelSpec


def invoked(interpreter: Any, spec: ModelSpec, images: Iterable[npt.NDArray[Any]]) -> Iterator[None]:
    """After each of a dataset's images that an interpreter has run."""
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    for pixels in images:
        inputs = spec.to_input(pixels[np.newaxis])
        interpreter.set_tensor(entry["index"], outputs.quantize(inputs, entry["dtype"], *entry["quantization"]))
        interpreter.invoke()
        yield


def predict(content: bytes, data: Dataset) -> npt.NDArray[np.float64]:
    """The outputs of a .tflite as real numbers, [N, numbers], classes as `as_classes` has them."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    details = interpreter.get_output_details()
    rows = []
    for _ in invoked(interpreter, data.spec, data.images):
        tensors = [(interpreter.get_tensor(output["index"]), output["quantization"]) for output in details]
        rows.append(np.concatenate([outputs.dequantize(raw.reshape(-1), *scaled) for raw, scaled in tensors]))
    real = np.stack(rows)
    return np.asarray(real if data.spec.outputs else outputs.as_classes(real), np.float64)
