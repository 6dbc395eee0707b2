"""Batch normalisation by TensorFlow's fused kernel.

Keras 3 composes it from elementwise operations, which take most of the training time of a deep, narrow network. The
values are the same, and so are the weights: their number, order and meaning.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers


@keras.saving.register_keras_serializable("harness")
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
            mean=self.moving_mean,
            variance=self.moving_variance,
            epsilon=self.epsilon,
            exponential_avg_factor=1 - self.momentum if update else 1.0,
            is_training=update,
        )
        if update:  # the kernel averaged them; its batch variance is unbiased, N/(N-1) times that of Keras
            self.moving_mean.assign(mean)
            self.moving_variance.assign(variance)
        return y
