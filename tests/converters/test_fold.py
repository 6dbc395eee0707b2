"""The fold: equal outputs on random networks, what it must not fold, and what TensorFlow Lite sees of the result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers
from numpy.typing import NDArray

from converters.fold import Fold, fold
from models.resnet import build_resnet

few = settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@contextmanager
def float64() -> Iterator[None]:
    """Layers made inside compute and keep their weights in float64."""
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        yield
    finally:
        keras.config.set_floatx(before)
        keras.config.set_dtype_policy(before)


def randomise(model: keras.Model, seed: int) -> keras.Model:
    """Random weights and batch norm statistics throughout; every batch norm's scale is positive."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, layers.BatchNormalization):
            for variable in layer.weights:
                positive = variable.name in ("gamma", "moving_variance")
                variable.assign(rng.uniform(0.3, 2, variable.shape) if positive else rng.normal(0, 1, variable.shape))
        elif getattr(layer, "use_bias", False) and layer.built:
            layer.bias.assign(rng.normal(0, 1, layer.bias.shape))
    return model


def batch_norms(model: keras.Model) -> list[Any]:
    return [op for op in model.operations if isinstance(op, layers.BatchNormalization)]


def outputs(model: keras.Model, seed: int = 0) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    inputs = [rng.normal(0, 1, (3, *tensor.shape[1:])).astype(tensor.dtype) for tensor in model.inputs]
    results = keras.tree.flatten(model(inputs if len(inputs) > 1 else inputs[0]))
    return np.concatenate([np.reshape(one, (3, -1)) for one in results], axis=1)


def check_equal(model: keras.Model, folded: keras.Model, tolerance: float = 1e-9) -> None:
    expected, received = outputs(model), outputs(folded)
    assert np.isfinite(expected).all()
    assert np.ptp(expected) > 0
    assert np.abs(received - expected).max() <= tolerance * np.abs(expected).max()


def check_all_folded(model: keras.Model, result: Fold) -> None:
    assert result.kept == ()
    assert result.folded == tuple(bn.name for bn in batch_norms(model))
    assert not batch_norms(result.model)
    left = [op.name for op in model.operations if not isinstance(op, layers.BatchNormalization)]
    assert sorted(op.name for op in result.model.operations) == sorted(left)


def norm(x: Any, **options: Any) -> Any:
    return layers.BatchNormalization(**options)(x)


RELUS: tuple[Callable[[Any], Any], ...] = (
    lambda x: layers.ReLU()(x),
    lambda x: layers.Activation("relu")(x),
    keras.ops.relu,
    keras.activations.relu,
)
ADDS: tuple[Callable[[list[Any]], Any], ...] = (lambda xs: layers.Add()(xs), lambda xs: sum(xs[1:], xs[0]))
HEADS: tuple[Callable[[Any], Any], ...] = (
    lambda x: layers.GlobalAveragePooling2D()(x),
    lambda x: layers.GlobalMaxPooling2D()(x),
    lambda x: layers.Flatten()(x),
    lambda x: layers.Flatten()(layers.AveragePooling2D(2, padding="same")(x)),
)


# Models are built in the tests' bodies: Keras draws from `random`, which Hypothesis forbids in a strategy.
def pre_activation_network(draw: Callable[..., Any]) -> keras.Model:
    """Stages of blocks BN-ReLU-conv...-add, with what varies between the published ones, and then some."""

    def pick(*choices: Any) -> Any:
        return draw(st.sampled_from(choices))

    relu, add = draw(st.sampled_from(RELUS)), draw(st.sampled_from(ADDS))
    bias, dropout, padded = pick(False, True), pick(False, True), pick(False, True)
    statistics = {"center": pick(True, True, False), "scale": pick(True, True, False)}

    def activated(x: Any) -> Any:
        return relu(norm(x, **statistics))

    def conv(x: Any, channels: int, kernel: int, stride: int = 1) -> Any:
        if padded and kernel == 3:
            return layers.Conv2D(channels, 3, stride, use_bias=bias)(layers.ZeroPadding2D(1)(x))
        return layers.Conv2D(channels, kernel, stride, padding="same", use_bias=bias)(x)

    def branch(x: Any, channels: int, stride: int, kind: str) -> Any:
        if kind == "bottleneck":
            x = activated(conv(x, pick(1, 2), 1, stride))
            x = conv(activated(conv(x, pick(1, 3), 3)), channels, 1)
        elif kind == "depthwise":
            x = layers.DepthwiseConv2D(3, stride, padding="same", depth_multiplier=2, use_bias=bias)(x)
            x = conv(activated(x), channels, 1)
        else:
            x = conv(activated(conv(x, pick(1, 4), 3, stride)), channels, 3)
        return layers.Dropout(0.5)(x) if dropout else x

    with float64():
        image = keras.Input((6, 6, 2))
        channels = pick(1, 3)
        x = conv(image, channels, 3)
        if pick(False, True):
            x = layers.MaxPooling2D(3, 1, padding="same")(x)
        for stage in range(pick(1, 2)):
            stride = stage + 1
            wider = pick(channels, 4)
            for index in range(pick(1, 2, 3)):
                pre = activated(x)
                shortcut, step = x, 1
                if index == 0:
                    step = stride
                    raw = [lambda x: conv(x, wider, 1, stride)]  # noqa: B023 (called within the loop's turn)
                    if wider == channels:
                        raw.append(lambda x: layers.MaxPooling2D(1, stride)(x))  # noqa: B023
                        raw.append(lambda x: layers.AveragePooling2D(stride)(x))  # noqa: B023
                    shortcut = draw(st.sampled_from(raw))(x) if pick(False, True) else conv(pre, wider, 1, stride)
                kinds = pick(["bottleneck"], ["basic"], ["depthwise"], ["bottleneck", "basic"])
                x = add([shortcut, *(branch(pre, wider, step, kind) for kind in kinds)])
            channels = wider
        x = draw(st.sampled_from(HEADS))(activated(x))
        model = keras.Model(image, layers.Dense(3, pick(None, "softmax"))(x))
    return randomise(model, draw(st.integers(0, 1000)))


def ordinary_network(draw: Callable[..., Any]) -> keras.Model:
    """A plain CNN, a ResNet v1 or a MobileNet v2 of random shape: batch norm after each convolution."""

    def pick(*choices: Any) -> Any:
        return draw(st.sampled_from(choices))

    bias, relu = pick(False, True), draw(st.sampled_from(RELUS))

    def conv(x: Any, channels: int, kernel: int, **options: Any) -> Any:
        return norm(layers.Conv2D(channels, kernel, padding="same", use_bias=bias, **options)(x))

    with float64():
        image = keras.Input((6, 6, 2))
        kind = pick("plain", "resnet v1", "mobilenet")
        x = relu(conv(image, 4, 3))
        for _ in range(pick(1, 2, 3)):
            if kind == "plain":
                x = relu(conv(x, pick(2, 4, 6), pick(1, 3), groups=2, strides=pick(1, 2)))
            elif kind == "resnet v1":
                stride, channels = pick((1, x.shape[-1]), (2, 6))
                y = conv(relu(conv(x, 2, 3, strides=stride)), channels, 3)
                x = relu(layers.Add()([y, x if stride == 1 else conv(x, channels, 1, strides=2)]))
            else:
                y = layers.ReLU(6)(conv(x, 4, 1))
                y = norm(layers.DepthwiseConv2D(3, padding="same", use_bias=bias)(y))
                x = x + conv(layers.ReLU(6)(y), x.shape[-1], 1)
        x = layers.GlobalAveragePooling2D()(x)
        if kind == "plain":
            x = relu(norm(layers.Dense(4)(x)))
        model = keras.Model(image, layers.Dense(3, "softmax")(x))
    return randomise(model, draw(st.integers(0, 1000)))


@few
@given(data=st.data())
def test_pre_activation_networks_lose_every_batch_norm(data: st.DataObject) -> None:
    """A pre-activation network comes out without batch norms, every other layer in place, and answers the same."""
    model = pre_activation_network(data.draw)
    result = fold(model)
    check_all_folded(model, result)
    check_equal(model, result.model)


@few
@given(data=st.data())
def test_ordinary_networks_lose_every_batch_norm(data: st.DataObject) -> None:
    """Every convolution takes in the batch norm after it, whatever the sign of its scale, and the answers stay."""
    model = ordinary_network(data.draw)
    for bn in batch_norms(model):
        bn.gamma.assign(bn.gamma.numpy() * np.resize([1, -1, 0], bn.gamma.shape))
    result = fold(model)
    check_all_folded(model, result)
    check_equal(model, result.model)


def is_after_convolution(bn: Any) -> bool:
    maker = bn.input._keras_history.operation
    return isinstance(maker, layers.Conv2D | layers.DepthwiseConv2D) and len(maker._outbound_nodes) == 1


@few
@given(data=st.data())
def test_scales_that_are_not_positive_stay(data: st.DataObject) -> None:
    """Batch norms on the stream with a scale of zero or less stay and say so; the rest folds and the answers stay."""
    model = pre_activation_network(data.draw)
    on_stream = [bn for bn in batch_norms(model) if bn.scale and not is_after_convolution(bn)]
    expected = []
    for bn in on_stream:
        if data.draw(st.booleans()):
            gamma = bn.gamma.numpy().copy()
            gamma[data.draw(st.integers(0, gamma.size - 1))] = data.draw(st.sampled_from([0.0, -1.5, -1e-9]))
            bn.gamma.assign(gamma)
            expected.append((bn.name, f"its scale is zero or negative in 1 of {gamma.size} channels"))
    result = fold(model)
    assert result.kept == tuple(expected)
    assert [bn.name for bn in batch_norms(result.model)] == [name for name, _ in expected]
    check_equal(model, result.model)


@keras.saving.register_keras_serializable()
class Doubled(layers.Layer):
    """A layer of the user's own."""

    def call(self, x: Any) -> Any:
        return 2 * x


class OwnNorm(layers.BatchNormalization):
    """A batch norm of the user's own."""

    def call(self, x: Any, training: Any = None, mask: Any = None) -> Any:
        return super().call(x, training=training, mask=mask) + 1


def conv(x: Any, channels: int = 3, kernel: int = 1, **options: Any) -> Any:
    return layers.Conv2D(channels, kernel, padding="same", **options)(x)


def stream_with(tail: Callable[[Any], Any]) -> keras.Model:
    """A model that ends in what is made of a residual stream [N, 4, 4, 3]; one batch norm before it always folds."""
    image = keras.Input((4, 4, 3))
    return keras.Model(image, tail(layers.Add(name="stream")([norm(conv(image), name="pair"), conv(image)])))


def before_relu(x: Any, **options: Any) -> Any:
    return layers.ReLU()(norm(x, name="bn", **options))


def shared_convolution() -> keras.Model:
    image, shared = keras.Input((4, 4, 3)), layers.Conv2D(3, 1, name="shared")
    return keras.Model(image, layers.ReLU()(norm(shared(shared(image)), name="bn")))


def shared_batch_norm() -> keras.Model:
    image, shared = keras.Input((4, 4, 3)), layers.BatchNormalization(name="bn")
    return keras.Model(image, shared(conv(shared(conv(image)))))


def gated(x: Any) -> Any:
    y = conv(before_relu(x))
    x = layers.Add(name="sum")([x, layers.Multiply()([y, layers.GlobalAveragePooling2D(keepdims=True)(y)])])
    return conv(layers.ReLU()(norm(x, name="bn2")))


def branch_returned(x: Any) -> list[Any]:
    y = conv(before_relu(x))
    return [conv(layers.ReLU()(norm(layers.Add(name="sum")([x, y]), name="bn2"))), y]


def two_readers(x: Any) -> Any:
    return conv(before_relu(x)) + conv(layers.ReLU()(norm(x, name="bn2")))


def narrow(x: Any) -> Any:
    return conv(layers.ReLU(dtype="float32")(norm(x, name="bn")), dtype="float32")


STAYS: dict[str, tuple[Callable[[], keras.Model], tuple[tuple[str, str], ...]]] = {
    "another reader of the stream": (
        lambda: stream_with(lambda x: [conv(before_relu(x)), conv(x, kernel=3, name="reader")]),
        (("bn", "its input is also read by reader (Conv2D)"),),
    ),
    "stream returned": (
        lambda: stream_with(lambda x: [conv(before_relu(x)), x]),
        (("bn", "its input is also read by the model's output"),),
    ),
    "another reader of the normalised tensor": (
        lambda: stream_with(lambda x: conv(layers.ReLU()(y := norm(x, name="bn"))) + layers.Softmax(name="soft")(y)),
        (("bn", "read by something else than a plain ReLU: soft (Softmax)"),),
    ),
    "ReLU read by no convolution": (
        lambda: stream_with(lambda x: layers.Softmax(name="soft")(before_relu(x))),
        (("bn", "between its ReLU and a convolution: soft (Softmax)"),),
    ),
    "ReLU returned": (
        lambda: stream_with(before_relu),
        (("bn", "between its ReLU and a convolution: the model's output"),),
    ),
    "capped ReLU": (
        lambda: stream_with(lambda x: conv(layers.ReLU(6, name="relu6")(norm(x, name="bn")))),
        (("bn", "read by something else than a plain ReLU: relu6 (ReLU)"),),
    ),
    "leaky ReLU": (
        lambda: stream_with(lambda x: conv(layers.ReLU(negative_slope=0.1, name="leaky")(norm(x, name="bn")))),
        (("bn", "read by something else than a plain ReLU: leaky (ReLU)"),),
    ),
    "Lambda between": (
        lambda: stream_with(lambda x: conv(before_relu(layers.Lambda(lambda t: t * t, name="square")(x)))),
        (("bn", "its input comes from square (Lambda)"),),
    ),
    "custom layer between": (
        lambda: stream_with(lambda x: conv(Doubled(name="double")(before_relu(x)))),
        (("bn", "between its ReLU and a convolution: double (Doubled)"),),
    ),
    "padding between": (
        lambda: stream_with(lambda x: conv(before_relu(layers.ZeroPadding2D(name="pad")(x)))),
        (("bn", "its input comes from pad (ZeroPadding2D)"),),
    ),
    "custom batch norm": (
        lambda: stream_with(lambda x: conv(layers.ReLU()(OwnNorm(name="bn")(x)))),
        (("bn", "a OwnNorm may compute otherwise than Keras's own"),),
    ),
    "convolution with an activation": (
        lambda: stream_with(lambda x: norm(conv(x, activation="relu", name="active"), name="bn")),
        (("bn", "its input comes from active (Conv2D, with an activation)"),),
    ),
    "shared convolution": (
        shared_convolution,
        (("bn", "its input comes from shared (Conv2D, called 2 times)"),),
    ),
    "shared batch norm": (shared_batch_norm, (("bn", "called 2 times"),)),
    "batch statistics": (
        lambda: stream_with(lambda x: conv(layers.ReLU()(layers.BatchNormalization(name="bn")(x, training=True)))),
        (("bn", "called with an argument such as training=True"),),
    ),
    "another axis": (
        lambda: stream_with(lambda x: conv(before_relu(x, axis=1))),
        (("bn", "normalizes axis 1, not the last"),),
    ),
    "mixed precision": (
        lambda: stream_with(lambda x: conv(before_relu(x, dtype="float32"))),
        (("bn", "mixed precision, float32 and float64"),),
    ),
    "mixed precision after it": (
        lambda: stream_with(
            lambda x: conv(layers.Flatten(dtype="float32", name="flat")(before_relu(x))[:, None, None])
        ),
        (("bn", "between its ReLU and a convolution: flat (Flatten, mixed precision, float32 and float64)"),),
    ),
    "tiny scale": (
        lambda: stream_with(lambda x: conv(before_relu(x, gamma_initializer=lambda *_, **__: np.full(3, 1e-5)))),
        (("bn", "its scale is tiny in 3 of 3 channels"),),
    ),
    "gate instead of a convolution": (
        lambda: stream_with(gated),
        (
            ("bn", "no convolution of its own feeds sum (Add) to set the shift"),
            ("bn2", "no convolution of its own feeds sum (Add) to set the shift"),
        ),
    ),
    "convolution with another reader": (
        lambda: stream_with(branch_returned),
        (
            ("bn", "no convolution of its own feeds sum (Add) to set the shift"),
            ("bn2", "no convolution of its own feeds sum (Add) to set the shift"),
        ),
    ),
    "two batch norms of one stream": (
        lambda: stream_with(two_readers),
        (("bn2", "its input is shifted for bn already"),),
    ),
}


@pytest.mark.parametrize("case", STAYS)
def test_what_cannot_be_folded_exactly_stays(case: str) -> None:
    """What is in the way keeps a batch norm in the model, is named, and the answers stay."""
    build, kept = STAYS[case]
    with float64():
        model = build()
    tiny = case == "tiny scale"
    if not tiny:
        randomise(model, 1)
    else:
        model.get_layer("bn").beta.assign([1.0, -1.0, 1.0])
    result = fold(model)
    assert result.kept == kept
    assert result.folded == tuple(bn.name for bn in batch_norms(model) if bn.name not in dict(kept))
    assert {bn.name for bn in batch_norms(result.model)} == {name for name, _ in kept}
    check_equal(model, result.model, 1e-6 if case.startswith("mixed") else 1e-9)


def test_statistics_that_are_not_finite_stay() -> None:
    """A batch norm with NaN in its weights is left alone, after a convolution too."""
    image = keras.Input((4, 4, 3))
    model = keras.Model(image, norm(conv(image), name="bn"))
    model.get_layer("bn").moving_mean.assign([0.0, np.nan, 0.0])
    assert fold(model).kept == (("bn", "read by something else than a plain ReLU: the model's output"),)


def test_every_kind_of_convolution_takes_scale_and_shift() -> None:
    """Grouped, depthwise and dense layers take a scale after the ReLU, and a shift where they read the stream."""
    with float64():
        x = keras.Input((4, 4, 2))
        stream = layers.Add()([layers.Conv2D(4, 1)(x), layers.Conv2D(4, 1, groups=2)(x)])
        y = layers.ReLU()(norm(stream))
        ends = [layers.Conv2D(6, 3, padding="same", groups=2)(y), layers.DepthwiseConv2D(3, padding="same")(y)]
        ends += [layers.Conv2D(6, 3, groups=2)(stream), layers.DepthwiseConv2D(2, depth_multiplier=2)(stream)]
        ends += [layers.Dense(3)(y), layers.Dense(3)(stream), layers.GlobalAveragePooling2D()(layers.Conv2D(2, 1)(y))]
        model = keras.Model(x, ends)
    result = fold(randomise(model, 8))
    check_all_folded(model, result)
    check_equal(model, result.model)


def test_sequences_and_vectors_have_streams_too() -> None:
    """A residual stream of Conv1D or of Dense layers folds like one of images."""
    with float64():
        x = keras.Input((6, 3))
        y = layers.Conv1D(3, 3, padding="causal")(x)
        y = layers.Add()([y, layers.Conv1D(3, 3, padding="causal")(layers.ReLU()(norm(y)))])
        y = layers.Dense(4)(layers.Flatten()(layers.ReLU()(norm(y))))
        y = layers.Add()([y, layers.Dense(4)(layers.ReLU()(norm(y)))])
        model = keras.Model(x, layers.Dense(2)(layers.ReLU()(norm(y))))
    result = fold(randomise(model, 9))
    check_all_folded(model, result)
    check_equal(model, result.model)


def test_the_users_own_functions_in_a_changed_layer_are_kept() -> None:
    """A layer that takes in a batch norm keeps an activation of the user's own, and the given layer its weights."""
    with float64():
        x = keras.Input((4, 4, 2))
        y = layers.Conv2D(3, 1, kernel_initializer=lambda shape, dtype: keras.ops.ones(shape, dtype))(x)
        y = layers.Add()([y, conv(layers.ReLU()(norm(y)))])
        own = layers.Dense(2, activation=lambda t: keras.ops.sin(t) + t)
        model = randomise(keras.Model(x, own(layers.ReLU()(norm(y)))), 10)
    before, expected = own.get_weights()[0].copy(), outputs(model)
    result = fold(model)
    check_all_folded(model, result)
    np.testing.assert_array_equal(own.get_weights()[0], before)
    np.testing.assert_allclose(outputs(result.model), expected, rtol=1e-9)


def test_a_sequential_model_comes_back_functional() -> None:
    """The layers of a Sequential model fold like any others."""
    with float64():
        model = keras.Sequential([keras.Input((4, 4, 2)), layers.Conv2D(3, 3), layers.BatchNormalization()], name="s")
    result = fold(randomise(model, 2))
    assert (result.kept, result.model.name, len(batch_norms(result.model))) == ((), "s", 0)
    check_equal(model, result.model)


def test_several_inputs_and_outputs_keep_their_names() -> None:
    """Named inputs and outputs keep names and structure, also an output that was a batch norm."""
    with float64():
        left, right = keras.Input((4, 4, 2), name="left"), keras.Input((4, 4, 2), name="right")
        x = layers.Add()([conv(left), conv(right)])
        model = keras.Model({"left": left, "right": right}, {"a": conv(before_relu(x)), "b": norm(conv(left))})
    result = fold(randomise(model, 3))
    assert (result.kept, len(result.folded)) == ((), 2)
    assert [tensor.name for tensor in result.model.inputs] == ["left", "right"]
    assert result.model.output_names == model.output_names
    image = np.random.default_rng(0).normal(size=(2, 4, 4, 2))
    expected, received = (one({"left": image, "right": image + 1}) for one in (model, result.model))
    for key in ("a", "b"):
        np.testing.assert_allclose(received[key], expected[key], rtol=1e-9, atol=1e-12)


def test_nested_models_fold_inside() -> None:
    """A nested functional model folds by itself; one that is called in training mode stays."""
    with float64():
        image = keras.Input((4, 4, 2))
        inner = keras.Model(image, norm(conv(image, 2), name="bn"), name="inner")
        other = keras.Model(image, norm(conv(image, 2), name="bn"), name="other")
        model = keras.Model(x := keras.Input((4, 4, 2)), other(inner(inner(x)), training=True))
    result = fold(randomise(model, 4))
    assert result.folded == ("inner/bn",)
    assert result.kept == (("other/bn", "inside other (Functional)"),)
    check_equal(model, result.model)


class Subclassed(keras.Model):
    """A model whose graph is not known."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = layers.BatchNormalization(name="bn")

    def call(self, x: Any) -> Any:
        return self.bn(x)


@pytest.mark.parametrize("model", [Subclassed(), keras.Sequential([layers.BatchNormalization(name="bn")])])
def test_models_without_a_graph_come_back_as_they_were(model: keras.Model) -> None:
    """A subclassed model, or one not built, is returned itself with the reason."""
    assert fold(model) == Fold(model, (), (("bn", "the model is not functional, or not built"),))


def test_the_given_model_stays_as_it_was() -> None:
    """Folding changes no weight and no layer of the given model, and gives the same names each time."""
    model = randomise(build_resnet(11), 5)
    before = [array.copy() for array in model.get_weights()]
    first, second = fold(model), fold(model)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert [op.name for op in first.model.operations] == [op.name for op in second.model.operations]
    assert model.get_layer("pool").output is model.get_layer("probabilities").input
    for old, new in zip(first.model.get_weights(), second.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_resnet_in_float64() -> None:
    """The ResNet of models/ folds completely and is equal in float64."""

    def clone(layer: Any) -> Any:
        return type(layer).from_config(layer.get_config() | {"dtype": "float64"})

    with float64():
        model = randomise(keras.models.clone_model(build_resnet(20), clone_function=clone), 6)
    result = fold(model)
    check_all_folded(model, result)
    check_equal(model, result.model)


def op_names(model: keras.Model) -> Counter[str]:
    import tensorflow as tf

    interpreter = Interpreter(model_content=tf.lite.TFLiteConverter.from_keras_model(model).convert())
    return Counter(op["op_name"] for op in interpreter._get_ops_details())


def test_tflite_has_only_the_residual_additions() -> None:
    """TensorFlow Lite's converter leaves no multiplication, and as many additions as the network has blocks."""
    model = randomise(build_resnet(20), 7)
    result = fold(model)
    check_all_folded(model, result)
    check_equal(model, result.model, 1e-4)
    ops = op_names(result.model)
    assert ops["MUL"] == 0
    assert ops["ADD"] == 6
    assert ops["CONV_2D"] == 22
