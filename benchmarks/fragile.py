"""Networks that quantization may hurt, trained here on `benchmarks.shapes`: what `--recover` must bring back.

python -m benchmarks.fragile NAME FOLDER writes FOLDER/NAME.keras and its folders of images.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from benchmarks import shapes

SIZE = 32
NAMES = ("narrow", "mobilenet_v3_small")
STEPS, BATCH, RATE = 4000, 128, 4e-3
FIRST_SEED = 100  # of the batches: no other images are rendered with these
SPREAD = 1.5  # powers of ten, up and down
IMAGES = {"training": (16000, 1), "calibration": (400, 2), "test": (4000, 3)}  # folder: how many, seed


def narrow(shape: tuple[int, ...], classes: int) -> keras.Model:
    """A small MobileNet with swish: depthwise layers of few channels, which begin with scales of 1 to 1000."""
    layers = keras.layers
    x = image = keras.Input(shape)
    x = layers.Rescaling(1 / 127.5, -1)(x)
    x = _norm(layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(x))
    for width, strides in ((24, 1), (32, 2), (48, 1), (64, 2), (96, 1)):
        scales = (10 ** np.linspace(-SPREAD, SPREAD, x.shape[-1])).astype(np.float32)
        x = _norm(layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(x), scales)
        x = _norm(layers.Conv2D(width, 1, use_bias=False)(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(classes, activation="softmax")(x))


def _norm(x: Any, scales: Any = 1.0) -> Any:
    norm = keras.layers.BatchNormalization(gamma_initializer=keras.initializers.Constant(scales))
    return keras.layers.Activation("swish")(norm(x))


class Batches(keras.utils.PyDataset):
    """New images for every step."""

    def __len__(self) -> int:
        return STEPS

    def __getitem__(self, step: int) -> tuple[Any, Any]:
        pixels, labels = shapes.render(BATCH, SIZE, FIRST_SEED + step)
        return pixels.astype(np.float32), labels


def build(name: str) -> keras.Model:
    shape, classes = (SIZE, SIZE, 3), len(shapes.CLASSES)
    if name == "narrow":
        return narrow(shape, classes)
    families = {"mobilenet_v3_small": keras.applications.MobileNetV3Small}
    return families[name](input_shape=shape, weights=None, classes=classes)


def train(name: str) -> keras.Model:
    """The network trained, its batch norms adapted to so short a training; every image is seen once."""
    keras.utils.set_random_seed(0)
    model = build(name)
    momenta = {layer: layer.momentum for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)}
    for norm in momenta:
        norm.momentum = 0.97
    rate = keras.optimizers.schedules.CosineDecay(1e-4, STEPS, warmup_target=RATE, warmup_steps=STEPS // 10)
    model.compile(
        keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False
    )
    model.fit(Batches(workers=1, max_queue_size=8), verbose=2)
    for norm, momentum in momenta.items():
        norm.momentum = momentum
    return model


def write_images(folder: Path, size: int) -> None:
    """FOLDER/<set>/<class>/<number>.png."""
    for part, (count, seed) in IMAGES.items():
        for number, (pixels, label) in enumerate(zip(*shapes.render(count, size, seed), strict=True)):
            path = folder / part / shapes.CLASSES[label] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


def main(name: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model = train(name)
    model.save(folder / f"{name}.keras")
    names = ", ".join(f'"{name}"' for name in shapes.CLASSES)
    (folder / f"{name}.toml").write_text(f"class_names = [{names}]\npixel_range = [0, 255]\n")
    write_images(folder / "images", SIZE)
    pixels, labels = shapes.render(*IMAGES["test"][:1], SIZE, IMAGES["test"][1])
    answers = model.predict(pixels.astype(np.float32), 256, verbose=0).argmax(axis=1)
    print(f"{name}: top-1 accuracy {(answers == labels).mean():.2%} of {len(labels)} test images", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
