"""What a training run is fed: a split that does not leak, and augmented batches in a seeded order."""

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
MISLABELLED, SURE = 0.05, 0.98  # what a model gives to an image's own class, at which it is not worth more attention


def check_classes(data: Dataset, settings: TrainConfig) -> None:
    """Raise SetupError where a class has no image."""
    names = settings.model.class_names
    counts = np.bincount(data.labels, minlength=len(names))
    if empty := [name for name, count in zip(names, counts, strict=True) if not count]:
        raise SetupError(
            f"{settings.data}: no image of class {', '.join(empty)}; expected a folder with some for each of the "
            f"{len(names)} class_names"
        )


def split(data: Dataset, share: float, seed: int) -> tuple[Indices, Indices]:
    """Indices of training and validation images, the share taken from every class alike.

    Disjoint by content: copies of one image, under whatever name, stand on the same side. A class with a single
    image is trained on.
    """
    rng = np.random.default_rng(seed)
    contents = dataset.content_hashes(data.images)
    held: set[int] = set()
    for label in np.unique(data.labels):
        own = rng.permutation(np.unique(contents[data.labels == label]))
        if share and len(own) > 1:
            held |= set(own[: max(1, round(len(own) * share))])
    validation = np.isin(contents, list(held))
    return np.flatnonzero(~validation), np.flatnonzero(validation)


def record_split(path: Path, settings: TrainConfig, training: Dataset, validation: Dataset) -> None:
    """Write which files were held out, by name and SHA-256, and the hash of what was trained on."""
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
    """Which of count images the step-th batch takes, pass after pass over all of them."""
    turns, places = np.divmod(np.arange(step * size, (step + 1) * size), count)
    return np.concatenate([_order(seed, turn, count)[places[turns == turn]] for turn in np.unique(turns)])


@lru_cache(maxsize=4)  # a batch lies in one pass or across two; hard images have passes of their own
def _order(seed: int, turn: int, count: int) -> Indices:
    """The order of the dataset's images in its turn-th pass."""
    return np.random.default_rng([seed, turn]).permutation(count)


def unsure(outputs: npt.NDArray[np.floating], data: Dataset) -> Indices:
    """Indices of the images to whose own class a model gave little, but not next to nothing: those are mislabelled."""
    given = outputs[np.arange(len(data)), data.labels]
    return np.flatnonzero((given >= MISLABELLED) & (given < SURE))


class Batches(keras.utils.PyDataset):
    """Augmented batches, an epoch being `steps` of them; the order follows from seed and epoch.

    epoch: to be set before each: Keras tells its data of an epoch's begin once it has asked for the first batch.
    hard: indices of images of which each batch has the settings' hard_share, in the last quarter of all steps a line
    to none (hard example mining: Shrivastava, Gupta, Girshick, arXiv:1604.03540).
    Of several processes each gets its share of every batch.
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
        own = slice(self.settings.process, None, self.settings.processes)
        return self.settings.model.to_input(images[own]), self.data.labels[chosen[own]]

    def _hard(self, step: int) -> int:
        """How many of the batch of this step are hard ones: none of them twice, nearly always."""
        left = 1 - step / (self.settings.epochs * self.steps)
        share = self.settings.hard_share * min(1.0, 4 * left)
        return min(round(share * self.settings.batch_size), len(self.hard))


class Held(keras.utils.PyDataset):
    """The validation images as they are, in batches; of several processes each gets its share."""

    SIZE = 256

    def __init__(self, data: Dataset, settings: TrainConfig) -> None:
        super().__init__()
        count = len(data) - len(data) % settings.processes  # shares of one size
        own = slice(settings.process, count, settings.processes)
        self.images, self.labels = data.images[own], data.labels[own]
        self.size = max(1, self.SIZE // settings.processes)
        self.to_input = settings.model.to_input

    def __len__(self) -> int:
        return -(-len(self.labels) // self.size)

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        part = slice(index * self.size, (index + 1) * self.size)
        return self.to_input(self.images[part]), self.labels[part]
