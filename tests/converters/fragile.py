"""A tiny network that int8 spoils, and its images: which quarter of an image is bright."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests import store

SIZE, CLASSES = 8, ("ne", "nw", "se", "sw")
SETS = {"training": (1600, 1), "calibration": (120, 2), "test": (200, 3)}  # images, seed
LOUD = 80.0  # how much larger one channel is than the others, which decide


def render(count: int, seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Images [count, 8, 8, 3] and labels [count]."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    pixels = rng.uniform(0, 150, (count, SIZE, SIZE, 3)) * rng.uniform(0.3, 1, (count, 1, 1, 3))
    for image, label in zip(pixels, labels, strict=True):
        rows, columns = (label // 2) * 4, (1 - label % 2) * 4
        image[rows : rows + 4, columns : columns + 4] += rng.uniform(5, 60)
    return pixels.clip(0, 255).astype(np.uint8), labels


def make(folder: Path) -> None:
    """model.keras with its config, and a folder of images for each set."""
    import keras
    from keras import layers

    for name, (count, seed) in SETS.items():
        for number, (pixels, label) in enumerate(zip(*render(count, seed), strict=True)):
            path = folder / name / CLASSES[label] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    keras.utils.set_random_seed(0)
    x = image = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same")(x)
    x = layers.Activation("hard_swish")(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.Activation("hard_swish")(layers.BatchNormalization(name="norm")(x))
    x = layers.Conv2D(8, 1, activation="relu", name="reader")(x)
    model = keras.Model(image, layers.Dense(4, activation="softmax")(layers.Flatten()(x)))
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", jit_compile=False)
    pixels, labels = render(2000, 0)
    model.fit(pixels / np.float32(255), labels, 50, 12, verbose=0)
    norm, reader = model.get_layer("norm"), model.get_layer("reader")
    loud = np.where(np.arange(8) == 3, LOUD, 1)
    norm.gamma.assign(norm.gamma * loud)
    reader.kernel.assign(reader.kernel / loud[:, None])
    model.save(folder / "model.keras")
    (folder / "model.toml").write_text(f"class_names = {list(CLASSES)}\n".replace("'", '"'))


def stored() -> Path:
    """The folder that `make` fills, made once. Read-only."""
    return store.obtain("fragile", (inspect.getsource(sys.modules[__name__]),), make)
