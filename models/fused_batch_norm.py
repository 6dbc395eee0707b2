"""Batch normalisation through TensorFlow's fused kernel.

Keras 3 composes it from elementwise operations on TensorFlow, which is where the training time of a
deep, narrow network goes. The values are the same; so are the weights, in number, order and meaning.
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
        if update:  # the kernel has averaged; its batch variance is the unbiased one, N/(N-1) times Keras's own
            self.moving_mean.assign(mean)
            self.moving_variance.assign(variance)
        return y
