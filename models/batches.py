"""Training data: a split that does not leak, and augmented batches in a seeded order."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

from harness.core.errors import SetupError
from harness.core.files import sha256, write_atomic
from harness.images import dataset
from harness.images.dataset import Dataset
from models.augment import augment
from models.config import TrainConfig

Indices = npt.NDArray[np.int64]
SPLIT_SCHEMA = "harness-split/1"
MISLABELLED, SURE = 0.05, 0.98  # an image is hard if a model's probability of its class lies between these


def check_classes(data: Dataset, settings: TrainConfig) -> None:
    """Raise SetupError if a class has no image."""
    names = settings.model.class_names
    counts = np.bincount(data.labels, minlength=len(names))
    if empty := [name for name, count in zip(names, counts, strict=True) if not count]:
        raise SetupError(
            f"{settings.data}: no image of class {', '.join(empty)}; expected a folder with some for each of the "
            f"{len(names)} class_names"
        )


def split(data: Dataset, share: float, seed: int) -> tuple[Indices, Indices]:
    """Indices of the training and the validation images. `share` of each class is for validation.

    Disjoint by content: copies of one image are on the same side, whatever their names. A class with a single image is
    trained on.
    """
    rng = np.random.default_rng(seed)
    contents = dataset.content_hashes(data.images)
    held: set[int] = set()
    for label in np.unique(data.labels):
        of_class = rng.permutation(np.unique(contents[data.labels == label]))
        if share and len(of_class) > 1:
            held |= set(of_class[: max(1, round(len(of_class) * share))])
    validation = np.isin(contents, list(held))
    return np.flatnonzero(~validation), np.flatnonzero(validation)


def record_split(path: Path, settings: TrainConfig, training: Dataset, validation: Dataset) -> None:
    """Write the names and SHA-256 of the validation files, and the hash of the training images."""
    held = {name: sha256((settings.data / name).read_bytes()) for name in validation.names}
    record = {
        "schema": SPLIT_SCHEMA,
        "folder": str(settings.data),
        "seed": settings.seed,
        "share": settings.validation_share,
        "training": {"images": len(training), "sha256": training.sha256},
        "validation": {"images": len(validation), "sha256": validation.sha256, "files": held},
    }
    write_atomic(path, json.dumps(record, indent=1).encode())


def _drawn(seed: int, step: int, size: int, count: int) -> Indices:
    """Indices of batch `step` among `count` images, in one shuffled pass after another."""
    turns, places = np.divmod(np.arange(step * size, (step + 1) * size), count)
    return np.concatenate([_order(seed, turn, count)[places[turns == turn]] for turn in np.unique(turns)])


@lru_cache(maxsize=4)  # a batch lies in one pass or in two; hard images have their own passes
def _order(seed: int, turn: int, count: int) -> Indices:
    """The order of the images in pass `turn`."""
    return np.random.default_rng([seed, turn]).permutation(count)


def unsure(outputs: npt.NDArray[np.floating], data: Dataset) -> Indices:
    """Indices of the hard images: a model's probability of their class is low, but not as low as for a wrong label."""
    probabilities = outputs[np.arange(len(data)), data.labels]
    return np.flatnonzero((probabilities >= MISLABELLED) & (probabilities < SURE))


class Batches(keras.utils.PyDataset):
    """Augmented batches, `steps` an epoch, in an order that seed and epoch determine.

    epoch: set it before each epoch, because Keras announces an epoch only after it asked for the first batch.
    hard: indices of images that make up the settings' hard_share of each batch; the share falls linearly to 0 in the
    last quarter of all steps (hard example mining: Shrivastava, Gupta, Girshick, arXiv:1604.03540).
    With several processes, each gets its part of every batch.
    """

    def __init__(
        self, data: Dataset, settings: TrainConfig, steps: int, epoch: int = 0, hard: Indices | None = None
    ) -> None:
        super().__init__(workers=1, use_multiprocessing=False, max_queue_size=2)
        self.data, self.settings, self.steps, self.epoch = data, settings, steps, epoch
        self.hard = np.empty(0, np.int64) if hard is None else hard

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        step = self.epoch * self.steps + index
        size, hard = self.settings.batch_size, self._hard(step)
        chosen = _drawn(self.settings.seed, step, size, len(self.data))
        if hard:
            chosen[:hard] = self.hard[_drawn(self.settings.seed + 1, step, size, len(self.hard))[:hard]]
        rng = np.random.default_rng([self.settings.seed, step])
        images = augment(self.data.images[chosen], self.settings.augmentation, rng)
        part = slice(self.settings.process, None, self.settings.processes)
        return self.settings.model.to_input(images[part]), self.data.labels[chosen[part]]

    def _hard(self, step: int) -> int:
        """The number of hard images in the batch of this step, at most as many as there are."""
        left = 1 - step / (self.settings.epochs * self.steps)
        share = self.settings.hard_share * min(1.0, 4 * left)
        return min(round(share * self.settings.batch_size), len(self.hard))


class Held(keras.utils.PyDataset):
    """The validation images, unchanged, in batches. With several processes, each gets its part."""

    SIZE = 256

    def __init__(self, data: Dataset, settings: TrainConfig) -> None:
        super().__init__()
        count = len(data) - len(data) % settings.processes  # parts of equal size
        part = slice(settings.process, count, settings.processes)
        self.images, self.labels = data.images[part], data.labels[part]
        self.size = max(1, self.SIZE // settings.processes)
        self.to_input = settings.model.to_input

    def __len__(self) -> int:
        return -(-len(self.labels) // self.size)

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        part = slice(index * self.size, (index + 1) * self.size)
        return self.to_input(self.images[part]), self.labels[part]
