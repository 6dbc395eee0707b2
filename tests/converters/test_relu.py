"""RELU as a saturating QUANTIZE: the same numbers from a file without stand-alone RELUs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe

from converters import calibration, relu
from harness import dataset
from harness.worker import Model
from tests.conftest import CALIBRATION


def operations(content: bytes) -> Counter[str]:
    loaded = Interpreter(model_content=content)
    loaded.allocate_tensors()
    return Counter(operation["op_name"] for operation in loaded._get_ops_details())


def test_the_rewritten_file_answers_alike(tiny_variants: Path) -> None:
    """On every calibration image the int8 outputs are the same, step for step, and no RELU is left."""
    images = dataset.load(CALIBRATION).images
    float32 = (tiny_variants / "float32.tflite").read_bytes()
    ranges = {name: {"min": low, "max": high} for name, (low, high) in calibration.measure(float32, images).items()}
    made = quantizer.Quantizer(bytearray(float32), recipe.static_wi8_ai8())
    plain = bytes(made.quantize(ranges, enable_progress_report=False).quantized_model)
    rewritten = relu.as_quantize(plain)
    assert operations(plain)["RELU"] == operations(rewritten)["QUANTIZE"] > 0
    assert operations(rewritten)["RELU"] == 0
    answers = []
    for content in (plain, rewritten):
        model = Model(content, 1)
        outputs = []
        for image in model.quantize(dataset.to_input(images)):
            model.set(image)
            model.invoke()
            outputs.append(model.get())
        answers.append(np.array(outputs, int))
    assert np.abs(answers[0] - answers[1]).max() <= 1  # another rounding on the fast path
    assert (answers[0] == answers[1]).mean() > 0.95


def test_float_relus_and_files_without_any_stay(tiny_variants: Path) -> None:
    """A float32 file comes back byte for byte."""
    content = (tiny_variants / "float32.tflite").read_bytes()
    assert relu.as_quantize(content) == content
