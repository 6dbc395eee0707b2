"""Operations that accelerators get wrong, in an equal form: the same numbers on the CPU, right ones on the GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters import accelerators, calibration, quantize
from converters.interpreter import predict
from harness.artifacts import flatbuffer
from harness.images import dataset
from harness.images.dataset import Dataset
from harness.run import execute, job
from tests.conftest import CALIBRATION, DIGITS


@pytest.fixture(scope="module")
def data() -> Dataset:
    return dataset.take(dataset.load(CALIBRATION, DIGITS), np.arange(0, 220, 5))


def strides(x: Any) -> Any:
    """1x1 convolutions of every stride on sizes that it divides and does not, two of them on one tensor."""
    from keras import layers

    x = layers.Add()([layers.Conv2D(8, 1, strides=2, padding=padding)(x) for padding in ("same", "valid")])  # 13 x 13
    x = layers.Conv2D(12, 1, strides=3, activation="relu")(x)  # 5 x 5
    x = layers.Conv2D(12, 1, strides=(1, 2))(layers.Conv2D(12, 1)(x))  # 5 x 3
    return layers.Conv2D(16, 3, strides=2, padding="same")(x)


def gates(x: Any) -> Any:
    """A sum and a product with one number a channel, which TFLiteConverter writes with fewer dimensions."""
    from keras import layers

    x = layers.MaxPooling2D(5)(x)
    x = layers.Add()([x, layers.GlobalAveragePooling2D(keepdims=True)(x)])
    gate = layers.Dense(16, activation="sigmoid")(layers.GlobalAveragePooling2D()(x))
    return layers.Multiply()([x, layers.Reshape((1, 1, 16))(gate)])


def maxima(x: Any) -> Any:
    """Maxima over all rows and columns, with and without these dimensions; one over the channels stays."""
    from keras import layers, ops

    x = layers.Add()([x, layers.GlobalMaxPooling2D(keepdims=True)(x), ops.max(x, axis=-1, keepdims=True)])
    return layers.GlobalMaxPooling2D()(x)


@cache
def network(middle: Callable[[Any], Any]) -> bytes:
    """A float32 file as TFLiteConverter writes it."""
    import keras
    import tensorflow as tf
    from keras import layers

    keras.utils.set_random_seed(0)
    image = keras.Input((28, 28, 1), batch_size=1)
    x = middle(layers.Conv2D(16, 4, activation="relu")(image))  # of 25 x 25
    wide = keras.initializers.RandomNormal(stddev=3)
    x = layers.Dense(11, activation="softmax", kernel_initializer=wide)(layers.Flatten()(x))
    return bytes(tf.lite.TFLiteConverter.from_keras_model(keras.Model(image, x)).convert())


def counts(content: bytes) -> Counter[str]:
    """How many of each operation there are, of them 1x1 convolutions with a stride and sums of unlike dimensions."""
    model = flatbuffer.read(content)
    graph: Any = model.subgraphs[0]
    operations: Counter[str] = Counter()
    for operator in graph.operators:
        name, options = flatbuffer.operation(model, operator), operator.builtinOptions
        operations[name] += 1
        shapes = [list(graph.tensors[index].shape) for index in operator.inputs]
        if name == "CONV_2D" and shapes[1][1:3] == [1, 1]:
            operations["strided"] += max(options.strideH, options.strideW) > 1
        if name in ("ADD", "MUL"):
            operations["unlike"] += len(shapes[0]) != len(shapes[1])
    return operations


def test_each_stride_of_a_1x1_convolution_becomes_a_pooling() -> None:
    """One for both that read the same tensor."""
    before, after = counts(network(strides)), counts(accelerators.rewrite(network(strides)))
    assert (before["strided"], before["MAX_POOL_2D"]) == (4, 0)
    assert (after["strided"], after["MAX_POOL_2D"]) == (0, 3)


def test_sums_and_products_get_like_dimensions() -> None:
    """By one RESHAPE each."""
    before, after = counts(network(gates)), counts(accelerators.rewrite(network(gates)))
    assert (before["unlike"], after["unlike"]) == (2, 0)
    assert after["RESHAPE"] == before["RESHAPE"] + 2


def test_maxima_over_an_image_become_poolings(data: Dataset) -> None:
    """Two of the three; in int8 they are integers then, which litert-quantizer leaves float32 otherwise."""
    float32 = network(maxima)
    rewritten = accelerators.rewrite(float32)
    assert (counts(float32)["REDUCE_MAX"], counts(float32)["MAX_POOL_2D"]) == (3, 0)
    assert (counts(rewritten)["REDUCE_MAX"], counts(rewritten)["MAX_POOL_2D"]) == (1, 2)
    int8 = counts(quantize.apply(quantize.recipe("int8"), rewritten, calibration.measure(rewritten, data)))
    assert int8["DEQUANTIZE"] == int8["REDUCE_MAX"] == 1


def test_a_file_without_any_stays(tiny_variants: Path) -> None:
    """Byte for byte; what is rewritten already, too."""
    rewritten = accelerators.rewrite(network(strides))
    assert accelerators.rewrite(rewritten) == rewritten
    content = (tiny_variants / "float32.tflite").read_bytes()
    assert accelerators.rewrite(content) == content


def test_what_has_no_equal_form_is_said() -> None:
    """Grouped convolutions whose groups are not of 4, 8 or 12 channels, and those of 1x1."""
    from keras import layers

    def grouped(groups: int, size: int = 3) -> list[str]:
        return list(accelerators.warnings(network(lambda x: layers.Conv2D(16, size, groups=groups)(x))))

    assert grouped(4) == grouped(1) == []
    (warning,) = grouped(8)
    assert warning.startswith("a convolution of 8 groups, 2 to 2 channels each")
    assert "is wrong where a 1x1 convolution in groups has int8 weights" in grouped(4, 1)[0]
    assert grouped(1, 1) == []


@pytest.mark.parametrize("kind", ["float32", "float16", "int8", "int8_float_io", "int16x8"])
@pytest.mark.parametrize("middle", [strides, gates, maxima])
def test_the_numbers_on_the_cpu_are_the_same(middle: Callable[[Any], Any], kind: str, data: Dataset) -> None:
    """To the bit, with the same ranges."""
    float32 = network(middle)
    rewritten = accelerators.rewrite(float32)
    if kind != "float32":
        ranges = calibration.measure(rewritten, data)
        float32, rewritten = (
            quantize.apply(quantize.recipe(kind), content, ranges if "int" in kind else None)
            for content in (float32, rewritten)
        )
    expected = predict(float32, data)
    assert len(np.unique(expected)) > 10
    np.testing.assert_array_equal(predict(rewritten, data), expected)


@pytest.mark.usefixtures("swiftshader")
@pytest.mark.parametrize(("middle", "kind"), [(strides, "dynamic_range"), (strides, "int8"), (gates, "int8")])
def test_the_gpu_predicts_as_the_cpu(middle: Callable[[Any], Any], kind: str, data: Dataset, tmp_path: Path) -> None:
    """LiteRT's GPU accelerator gets the file wrong as it was, and right as it is written."""
    contents = {"before": network(middle), "after": accelerators.rewrite(network(middle))}
    ranges = calibration.measure(contents["after"], data)
    contents = {
        name: quantize.apply(quantize.recipe(kind), content, ranges if kind == "int8" else None)
        for name, content in contents.items()
    }
    written = job.write(tmp_path, contents, data, None, 1, ("cpu", "gpu"))
    results = execute.run(written, lambda *_: None).results
    difference = {}
    for name in contents:
        cpu, gpu = (results[cell].arrays for cell in (name, f"{name}@gpu"))
        step = float(cpu["scale"]) or 1.0
        difference[name] = np.abs(cpu["outputs"].astype(float) - gpu["outputs"]).max() * step
    assert difference["before"] > 0.1
    assert difference["after"] < 0.02
