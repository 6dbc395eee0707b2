"""The Keras graph that is trained computes what the int8 file does, tensor by tensor."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from keras import layers, ops

from converters import equalize, float32, quantize, simulated_operations
from converters import quantization_training as training
from converters.calibration import Ranges
from converters.interpreter import predict
from converters.quantization_training import Plan
from converters.simulation import Simulation
from harness.core.errors import SetupError
from harness.images import dataset
from harness.images.dataset import Dataset
from harness.images.spec import ModelSpec

Layer = Callable[[Any], Any]

SPEC = ModelSpec((8, 8), 3, tuple("abcd"))
STEPS, MAX_STEPS = 6, 20  # of int8, by which 98 %, and all, of a tensor may differ from what is simulated


def mobile(x: Any) -> Any:
    """Depthwise layers, ReLU6, a hard swish, squeeze and excitation, swish, as in MobileNetV3."""
    x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(6, 3, padding="same", strides=2)(x)))
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, activation="relu")(x)
    x = layers.Activation("hard_swish")(layers.Conv2D(6, 1)(x) + layers.Conv2D(6, 1)(x))
    gate = layers.Conv2D(6, 1, activation="hard_sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    return layers.Activation("swish")(layers.Conv2D(6, 1)(x * gate))


def attentive(x: Any) -> Any:
    """Pooling, concatenation, padding and upsampling; layer norms, attention, GELU, tanh."""
    left, right = layers.MaxPooling2D(2)(x), layers.AveragePooling2D(2)(x)
    x = layers.Concatenate()([left, layers.Conv2D(4, 3, padding="same")(right)])
    x = layers.UpSampling2D(2)(layers.LeakyReLU()(layers.ZeroPadding2D(1)(x)))
    x = layers.Reshape((9, 8))(layers.Conv2D(8, 4, 4)(x))
    y = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(2, 4)(y, y)
    return layers.Dense(6, activation="gelu")(x) - layers.Dense(6, activation="tanh")(x)


@pytest.fixture(scope="module")
def data() -> Dataset:
    """24 images of noise, of several brightnesses."""
    rng = np.random.default_rng(0)
    pixels = (rng.random((24, *SPEC.shape)) * rng.uniform(60, 255, (24, 1, 1, 3))).astype(np.uint8)
    return dataset.build(pixels, [number % 4 for number in range(24)], [str(number) for number in range(24)], SPEC)


def files(middle: Layer, data: Dataset, path: Path) -> tuple[bytes, Ranges, bytes]:
    """What int8 is made from: a float32 file and its ranges; and the int8 file with weights per channel."""
    keras.utils.set_random_seed(0)
    image = keras.Input(SPEC.shape)
    wide = keras.initializers.RandomNormal(stddev=0.5)
    x = layers.Dense(4, activation="softmax", kernel_initializer=wide)(layers.Flatten()(middle(image)))
    keras.Model(image, x).save(path)
    content, ranges = equalize.calibrate(float32.convert(path, SPEC).content, data)
    return content, ranges, quantize.make("int8", content, ranges, "channel")


def tensors(content: bytes, data: Dataset) -> dict[str, tuple[npt.NDArray[Any], float]]:
    """What a file computes, [N, ...] as real numbers, by tensor, with its step; of the int8 ones."""
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(
        model_content=content, experimental_preserve_all_tensors=True, experimental_op_resolver_type=plain
    )
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]
    rows: dict[str, list[Any]] = {}
    steps = {}
    for image in data.inputs():
        scale, zero = entry["quantization"]
        interpreter.set_tensor(entry["index"], (np.round(image / scale) + zero).clip(-128, 127).astype(np.int8)[None])
        interpreter.invoke()
        details = {tensor["name"]: tensor for tensor in interpreter.get_tensor_details()}
        for name, tensor in details.items():
            if tensor["dtype"] is np.int8 and tensor["quantization"][0]:
                steps[name], zero = tensor["quantization"]
                stored = interpreter.get_tensor(tensor["index"]).astype(np.float32)
                rows.setdefault(name, []).append((stored - zero) * steps[name])
    return {name: (np.stack(parts), steps[name]) for name, parts in rows.items()}


def assert_alike(simulation: Simulation, content: bytes, data: Dataset) -> None:
    computed = tensors(content, data)
    simulated, _ = simulation.trace(data.inputs())
    compared = simulated.keys() & computed.keys()
    assert len(compared) >= 5
    for name in compared:
        real, step = computed[name]
        off = np.abs(ops.convert_to_numpy(simulated[name]).reshape(real.shape) - real) / step
        assert np.quantile(off, 0.98) <= STEPS + 1e-3, name
        assert off.max() <= MAX_STEPS + 1e-3, name
        assert off.mean() <= 1.5, name


@pytest.fixture(scope="module")
def mobile_files(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Ranges, bytes]:
    return files(mobile, data, tmp_path_factory.mktemp("mobile") / "model.keras")


def test_every_tensor_is_that_of_the_int8_file(data: Dataset, mobile_files: tuple[bytes, Ranges, bytes]) -> None:
    """Within a few steps of int8 throughout, and without quantization that of the float32 file."""
    content, ranges, int8 = mobile_files
    simulation = Simulation(content, int8, ranges)
    assert_alike(simulation, int8, data)
    _, logarithms = simulation.trace(data.inputs(), quantized=False)
    np.testing.assert_allclose(np.exp(ops.convert_to_numpy(logarithms)), predict(content, data), atol=1e-5)


@pytest.mark.slow
def test_so_it_is_in_transformers(data: Dataset, tmp_path: Path) -> None:
    """Attention, layer norms, GELU, pooling, concatenation, padding, upsampling: the probabilities are alike, while a
    layer norm enlarges the steps of what it divides by."""
    content, ranges, int8 = files(attentive, data, tmp_path / "model.keras")
    _, logarithms = Simulation(content, int8, ranges).trace(data.inputs())
    np.testing.assert_allclose(np.exp(ops.convert_to_numpy(logarithms)), predict(int8, data), atol=0.06)


def test_the_file_made_of_what_was_trained_is_what_was_simulated(
    data: Dataset, mobile_files: tuple[bytes, Ranges, bytes], tmp_path: Path
) -> None:
    """Weights, biases and ranges learn; the int8 file has them, no larger than before."""
    content, ranges, int8 = mobile_files
    plan = Plan(steps=10, batch_size=8, rate=0.01, learn_from="labels")
    training.start(content, int8, ranges, tmp_path / "none.keras", (), data, data, plan, tmp_path / "checkpoint")
    while training.advance().step < plan.steps:
        pass
    simulation = training._trainers[0].simulation
    trained, learned = training.finish(ranges)
    assert trained != content
    moved = [name for name in ranges if not np.array_equal(learned[name][1].max(), ranges[name][1].max())]
    assert len(moved) >= 5
    made = quantize.make("int8", trained, learned, "channel")
    assert abs(len(made) - len(int8)) < 2000
    assert_alike(simulation, made, data)


def test_what_cannot_be_simulated_is_named(
    mobile_files: tuple[bytes, Ranges, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operation that training does not know, and its layer."""
    monkeypatch.delitem(simulated_operations.FUNCTIONS, "HARD_SWISH")
    content, ranges, int8 = mobile_files
    with pytest.raises(SetupError, match=r"HARD_SWISH \(.*\) cannot be simulated"):
        Simulation(content, int8, ranges)


ELSEWHERE = """
import pickle, sys
from pathlib import Path
from converters import quantization_training as training
folder = Path(sys.argv[1])
content, ranges, int8, data = pickle.loads((folder / "parts").read_bytes())
plan = training.Plan("labels", steps=10, batch_size=8, rate=0.01)
progress = training.start(content, int8, ranges, folder / "none", (), data, data, plan, folder / "checkpoint")
while progress.step < plan.steps:
    progress = training.advance()
import keras
assert keras.backend.backend() == "jax"
(folder / "progress").write_bytes(pickle.dumps((progress, training.finish(ranges))))
"""


@pytest.mark.slow
def test_any_backend_trains_it(data: Dataset, mobile_files: tuple[bytes, Ranges, bytes], tmp_path: Path) -> None:
    """On JAX, the loss begins as here and falls, and what was trained becomes an int8 file."""
    content, ranges, int8 = mobile_files
    (tmp_path / "parts").write_bytes(pickle.dumps((content, ranges, int8, data)))
    env = {**os.environ, "KERAS_BACKEND": "jax"}
    subprocess.run([sys.executable, "-c", ELSEWHERE, str(tmp_path)], env=env, check=True)
    progress, (trained, learned) = pickle.loads((tmp_path / "progress").read_bytes())
    plan = Plan("labels", steps=10, batch_size=8, rate=0.01)
    here = training.start(content, int8, ranges, tmp_path / "none", (), data, data, plan, tmp_path / "other")
    assert progress.loss_before == pytest.approx(here.loss_before, rel=0.05)
    assert progress.best_loss < progress.loss_before
    assert np.isfinite(predict(quantize.make("int8", trained, learned, "channel"), data)).all()
