"""Each operation alone, on an accelerator and on the CPU, as a Markdown table: docs/accelerators.md's.

    python -m benchmarks.operations gpu npu > table.md

Relative error: root mean square of the difference from the CPU's output / of its values, on noise.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from harness.core.cell import Accelerator, Cell
from harness.run import execute, job
from harness.run.job import Ran
from harness.tools import explain_accelerator
from harness.tools.explain import KeptTensors

KINDS = ("float32", "float16", "dynamic_range", "int8")
SHAPE = (16, 16, 64)
IMAGES = 2


def operations() -> dict[str, Callable[[Any], Any]]:
    from keras import layers, ops

    def conv(size: int, stride: int = 1, **options: Any) -> Callable[[Any], Any]:
        return layers.Conv2D(64, size, strides=stride, padding="same", **options)

    return {
        "CONV_2D 1x1": conv(1),
        "CONV_2D 1x1, stride 2": conv(1, 2),
        "CONV_2D 1x1, stride 3": conv(1, 3),
        "CONV_2D 3x3": conv(3),
        "CONV_2D 3x3, stride 2": conv(3, 2),
        "CONV_2D 3x3, dilation 2": conv(3, dilation_rate=2),
        "CONV_2D 5x5": conv(5),
        "CONV_2D 1x1, 4 groups": conv(1, groups=4),
        "CONV_2D 1x1, ReLU": conv(1, activation="relu"),
        "CONV_2D 1x1, ReLU6": conv(1, activation="relu6"),
        "DEPTHWISE_CONV_2D 3x3": layers.DepthwiseConv2D(3, padding="same"),
        "DEPTHWISE_CONV_2D 3x3, stride 2": layers.DepthwiseConv2D(3, strides=2, padding="same"),
        "DEPTHWISE_CONV_2D 1x1, stride 2": layers.DepthwiseConv2D(1, strides=2),
        "TRANSPOSE_CONV 3x3, stride 2": layers.Conv2DTranspose(64, 3, strides=2, padding="same"),
        "FULLY_CONNECTED": lambda x: layers.Dense(64)(layers.Flatten()(x)),
        "MAX_POOL_2D 2x2": layers.MaxPooling2D(2),
        "MAX_POOL_2D 1x1, stride 2": layers.MaxPooling2D(1, strides=2),
        "AVERAGE_POOL_2D 2x2": layers.AveragePooling2D(2),
        "STRIDED_SLICE, stride 2": lambda x: x[:, ::2, ::2],
        "MAX_POOL_2D 16x16": layers.MaxPooling2D(16),
        "REDUCE_MAX": layers.GlobalMaxPooling2D(),
        "MEAN": layers.GlobalAveragePooling2D(),
        "ADD": lambda x: layers.Add()([x, ops.flip(x, axis=-1)]),
        "MUL": lambda x: layers.Multiply()([x, ops.flip(x, axis=-1)]),
        "CONCATENATION": lambda x: layers.Concatenate()([x, x]),
        "PAD": layers.ZeroPadding2D(1),
        "RESIZE_BILINEAR x2": layers.UpSampling2D(2, interpolation="bilinear"),
        "RESIZE_NEAREST_NEIGHBOR x2": layers.UpSampling2D(2),
        "LOGISTIC": layers.Activation("sigmoid"),
        "TANH": layers.Activation("tanh"),
        "HARD_SWISH": layers.Activation("hard_swish"),
        "GELU": layers.Activation("gelu"),
        "LEAKY_RELU": layers.LeakyReLU(0.1),
        "SOFTMAX": layers.Softmax(),
        "BATCH_MATMUL": lambda x: ops.matmul(x, ops.transpose(x, (0, 1, 3, 2))),
        "REVERSE_V2": lambda x: ops.flip(x, axis=1),
        "CUMSUM": lambda x: ops.cumsum(x, axis=1),
        "ARG_MAX": lambda x: ops.one_hot(ops.argmax(x, axis=-1), 64),
    }


def tflite(operation: Callable[[Any], Any], kind: str) -> bytes:
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    entry = keras.Input(SHAPE, batch_size=1)
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(entry, operation(entry)))
    if kind != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if kind == "int8":
        converter.representative_dataset = lambda: ([image[np.newaxis]] for image in noise(8))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    with warnings.catch_warnings(action="ignore"), redirect_stdout(sys.stderr):
        return bytes(converter.convert())


def noise(images: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (images, *SHAPE)).astype(np.float32)


def measured(content: bytes, accelerator: Accelerator) -> tuple[str, Ran | None]:
    """The relative error in words, or why there is none."""
    kept = KeptTensors(content)
    expected, inputs = [], []
    for image in noise(IMAGES):
        kept.run(image)
        expected.append(kept.stored(kept.answer))
        inputs.append(kept.stored(kept.entry))
    with tempfile.TemporaryDirectory() as folder:
        written = job.write_tensors(Path(folder), content, [np.stack(inputs)], accelerator)
        outputs = execute.run(written, lambda *_: None)
    ran = outputs.results[job.TENSORS].ran if job.TENSORS in outputs.results else None
    if outputs.failures:
        return "refused" if ran else "crash", ran
    if ran and ran.fell_back:
        return "CPU", ran
    scale = kept.tensors[kept.answer]["quantization"][0]
    (actual,) = outputs.results[job.TENSORS].arrays.values()
    difference = explain_accelerator.compare(np.stack(expected), actual, 1.0 if scale else 0.0)
    return f"**{difference.error:.2g}**" if difference.departs else f"{difference.error:.1g}", ran


def rows(accelerators: list[Accelerator]) -> Iterator[list[str]]:
    yield ["operation", *(f"{accelerator}: {kind}" for accelerator in accelerators for kind in KINDS)]
    yield ["---"] * (1 + len(KINDS) * len(accelerators))
    known: dict[str, Ran] = {}
    for name, operation in operations().items():
        row = [name]
        contents = {}
        for kind in KINDS:
            try:
                contents[kind] = tflite(operation, kind)
            except Exception as error:  # TensorFlow's, of many kinds
                print(f"{name}, {kind}: {str(error).splitlines()[0]}", file=sys.stderr)
        for accelerator in accelerators:
            for kind in KINDS:
                shown, ran = measured(contents[kind], accelerator) if kind in contents else ("-", None)
                known |= {accelerator: ran} if ran and ran.adapter else {}
                row.append(shown)
                if ran and (ran.not_taken or ran.problem or ran.warnings):
                    said = [*ran.not_taken, *ran.warnings, ran.problem]
                    print(f"{name}, {kind}, {accelerator}: {said}", file=sys.stderr)
        yield row
    for name, ran in known.items():
        print(f"{name}: {ran.runtime}, {ran.adapter}, {ran.driver}, {ran.precision}", file=sys.stderr)
    print(f"converted by TensorFlow {version('tensorflow-cpu')}", file=sys.stderr)


if __name__ == "__main__":
    for row in rows([Cell.parse(f"any@{name}").accelerator for name in sys.argv[1:]]):
        print(f"| {' | '.join(row)} |", flush=True)
