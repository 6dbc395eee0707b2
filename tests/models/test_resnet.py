"""The architecture is the paper's, and the fused batch norm is Keras's."""

from __future__ import annotations

from collections import Counter

import keras
import numpy as np
import pytest

from models.fused_batch_norm import FusedBatchNormalization
from models.resnet import build_resnet


def test_resnet164_is_the_papers() -> None:
    """9 x 18 + 2 layers: 166 convolutions with three projections, 54 additions, about 1.7 million parameters."""
    model = build_resnet(164)
    counts = Counter(type(layer).__name__ for layer in model.layers)
    assert (counts["Conv2D"], counts["Add"], counts["BatchNormalization"]) == (166, 54, 163)
    assert (model.input_shape, model.output_shape) == ((None, 28, 28, 1), (None, 11))
    assert 1_700_000 < model.count_params() < 1_750_000
    assert model.get_layer("pad").output.shape == (None, 32, 32, 1)
    widths = [model.get_layer(f"stage{stage}_block18_add").output.shape for stage in (1, 2, 3)]
    assert widths == [(None, 32, 32, 64), (None, 16, 16, 128), (None, 8, 8, 256)]


def test_projections_read_the_activated_input() -> None:
    """Full pre-activation: a stage's projection shortcut follows batch norm and ReLU."""
    model = build_resnet(20)
    for stage in (1, 2, 3):
        source = model.get_layer(f"stage{stage}_block1_project").input
        assert source is model.get_layer(f"stage{stage}_block1_pre_relu").output


def test_an_impossible_depth_is_refused() -> None:
    """Depth is 9 n + 2."""
    with pytest.raises(ValueError, match="9 n"):
        build_resnet(100)


def test_fused_batch_norm_is_keras_batch_norm() -> None:
    """The same outputs, gradients and moving statistics in training, the same outputs in inference."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(1, 2, (8, 6, 6, 5)).astype(np.float32))
    results = []
    for kind in (keras.layers.BatchNormalization, FusedBatchNormalization):
        layer = kind(momentum=0.9, epsilon=1e-3)
        layer.build(x.shape)
        layer.set_weights([np.array([0.5, 1, 2, 1, 1]), np.array([0, 1, 0, -1, 0]), np.zeros(5), np.ones(5)])
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x, training=True) ** 3)
        gradients = tape.gradient(loss, [x, *layer.trainable_variables])
        results.append([loss, *gradients, *layer.get_weights(), layer(x, training=False)])
    for ours, theirs in zip(results[1], results[0], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=5e-3, atol=2e-3)
