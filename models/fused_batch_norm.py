"""Batch normalisation through TensorFlow's fused kernel.

Keras 3 composes it from elementwise operations on TensorFlow, which is where the training time of a
deep, narrow network goes. The values are the same; so are the weights, in number, order and meaning.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops


class FusedBatchNormalization(layers.BatchNormalization):
    """`keras.layers.BatchNormalization` over the last axis of [N, H, W, C], on TensorFlow's fused kernel."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if keras.backend.backend() != "tensorflow":
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        update = bool(training) and self.trainable
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma,
            offset=self.beta,
            mean=ops.zeros((0,)) if update else self.moving_mean,
            variance=ops.zeros((0,)) if update else self.moving_variance,
            epsilon=self.epsilon,
            is_training=update,
        )
        if update:
            # The kernel's variance is the unbiased one, N/(N-1) times Keras's own.
            for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
                moving.assign(moving * self.momentum + ops.cast(batch, moving.dtype) * (1 - self.momentum))
        return y
