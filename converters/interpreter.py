"""A .tflite file run on images, one at a time, as apps do: a file's batch may be fixed at one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.artifacts import outputs
from harness.images.dataset import Dataset
from harness.images.spec import ModelSpec


def invoked(interpreter: Any, spec: ModelSpec, images: Iterable[npt.NDArray[np.uint8]]) -> Iterator[None]:
    """After each of the uint8 images [H, W, C] that an interpreter has run."""
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    for pixels in images:
        inputs = spec.to_input(pixels[np.newaxis])
        interpreter.set_tensor(entry["index"], outputs.quantize(inputs, entry["dtype"], *entry["quantization"]))
        interpreter.invoke()
        yield


def predict(content: bytes, data: Dataset) -> npt.NDArray[np.float64]:
    """The outputs of a .tflite as real numbers, [N, classes]."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    (output,) = interpreter.get_output_details()
    stored = [interpreter.get_tensor(output["index"])[0] for _ in invoked(interpreter, data.spec, data.images)]
    return np.asarray(outputs.as_classes(outputs.dequantize(np.stack(stored), *output["quantization"])), np.float64)
