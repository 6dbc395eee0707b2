"""ResNet with full pre-activation bottlenecks (He et al., arXiv:1603.05027), for small images."""

from __future__ import annotations

import keras
from keras import layers

STAGE_CHANNELS = (64, 128, 256)
BOTTLENECK = 4  # a block's inner convolutions have a quarter of its output channels
BATCH_NORM = {"momentum": 0.9, "epsilon": 1e-3}


def build_resnet(
    depth: int = 164,
    *,
    classes: int = 11,
    shape: tuple[int, int, int] = (28, 28, 1),
    batch_norm: type[layers.BatchNormalization] = layers.BatchNormalization,
) -> keras.Model:
    """A classifier of float images [N, *shape] into probabilities [N, classes].

    depth: 9 n + 2 for n blocks in each of three stages (164 = 9 x 18 + 2).
    batch_norm: the layer class that normalises; training passes a faster equal of Keras's own.
    Raises ValueError where depth is not 9 n + 2.
    """
    blocks, remainder = divmod(depth - 2, 9)
    if remainder or blocks < 1:
        raise ValueError(f"depth {depth} is not 9 n + 2; the nearest below is {max(blocks, 1) * 9 + 2}")

    def normalised_relu(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        x = batch_norm(name=f"{name}_bn", **BATCH_NORM)(x)
        return layers.ReLU(name=f"{name}_relu")(x)

    def conv(x: keras.KerasTensor, channels: int, kernel: int, stride: int, name: str) -> keras.KerasTensor:
        return layers.Conv2D(
            channels,
            kernel,
            strides=stride,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=name,
        )(x)

    def block(x: keras.KerasTensor, channels: int, stride: int, project: bool, name: str) -> keras.KerasTensor:
        inner = channels // BOTTLENECK
        pre = normalised_relu(x, f"{name}_pre")
        shortcut = conv(pre, channels, 1, stride, f"{name}_project") if project else x
        y = conv(pre, inner, 1, stride, f"{name}_reduce")  # [N, H/stride, W/stride, inner]
        y = conv(normalised_relu(y, f"{name}_reduce"), inner, 3, 1, f"{name}_spatial")
        y = conv(normalised_relu(y, f"{name}_spatial"), channels, 1, 1, f"{name}_expand")
        return layers.Add(name=f"{name}_add")([shortcut, y])

    image = keras.Input(shape, name="image")
    margins = tuple(-size % 8 // 2 for size in shape[:2])  # 28 -> 32: two halvings divide evenly
    x = layers.ZeroPadding2D(margins, name="pad")(image)  # [N, 32, 32, channels]
    x = conv(x, STAGE_CHANNELS[0] // BOTTLENECK, 3, 1, "stem")  # [N, 32, 32, 16]
    for stage, channels in enumerate(STAGE_CHANNELS, start=1):
        for index in range(1, blocks + 1):
            first = index == 1
            stride = 2 if first and stage > 1 else 1
            x = block(x, channels, stride, project=first, name=f"stage{stage}_block{index}")
    x = normalised_relu(x, "head")  # [N, 8, 8, 256]
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    # float32 also under a mixed policy: probabilities keep their precision.
    x = layers.Dense(classes, activation="softmax", dtype="float32", name="probabilities")(x)
    return keras.Model(image, x, name=f"resnet{depth}")
