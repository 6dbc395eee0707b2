"""RELU as a saturating QUANTIZE: the same numbers from a file without stand-alone RELUs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from converters import calibration, quantize, relu
from harness.images import dataset
from harness.images.dataset import Dataset
from harness.run.worker import load
from tests.conftest import CALIBRATION, DIGITS


def run(content: bytes, data: Dataset) -> tuple[np.ndarray, Counter[str]]:
    """Raw int8 outputs by the reference kernels, which round alike for both operations, and the operations."""
    loaded = Interpreter(
        model_content=content, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    loaded.allocate_tensors()
    prepared = load(content, 1).quantize(data.inputs())
    outputs = []
    for image in prepared:
        loaded.set_tensor(loaded.get_input_details()[0]["index"], image)
        loaded.invoke()
        outputs.append(loaded.get_tensor(loaded.get_output_details()[0]["index"])[0])
    return np.array(outputs), Counter(operation["op_name"] for operation in loaded._get_ops_details())


def test_the_rewritten_file_answers_alike(tiny_variants: Path) -> None:
    """On every calibration image the int8 outputs are the same, step for step, and no RELU is left."""
    data = dataset.load(CALIBRATION, DIGITS)
    float32 = (tiny_variants / "float32.tflite").read_bytes()
    plain = quantize.plain(quantize.recipe("int8"), float32, calibration.measure(float32, data))
    before, operations_before = run(plain, data)
    after, operations_after = run(relu.as_quantize(plain), data)
    assert operations_before["RELU"] == operations_after["QUANTIZE"] > 0
    assert operations_after["RELU"] == 0
    assert len(np.unique(before)) >= 8
    np.testing.assert_array_equal(before, after)


def test_float_relus_and_files_without_any_stay(tiny_variants: Path) -> None:
    """A float32 file comes back byte for byte."""
    content = (tiny_variants / "float32.tflite").read_bytes()
    assert relu.as_quantize(content) == content
