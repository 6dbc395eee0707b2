"""Evidence of a check, shard by shard: held in memory, or on disk, where an interrupted check is resumed with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from harness.artifacts.reference import Reference
from harness.check.shard_task import ShardAnswer
from harness.check.subject import Subject
from harness.core import shapes
from harness.core.files import sha256
from harness.core.npz import Array
from harness.core.shapes import Shape
from harness.images import dataset
from harness.images.dataset import Dataset
from harness.judge import predictions
from harness.records import arrays, sharded_arrays
from harness.records.arrays import RecordArrays
from harness.records.sharded_arrays import ABOUT, DIGESTS, GREY, HASHES, SKIPPED, SOURCE, ShardedArrays, ShardFile
from harness.run.devices.base import DeviceRecord
from harness.run.job import Machine, Ran

LATENCY = "latency"  # the name of the latency's part; the others are shards'


def part_name(number: int) -> str:
    """Name of a shard's part."""
    return f"{number:06}"


class Answered(Shape):
    """The device that answered a shard. ran: by cell."""

    machine: Machine
    device: DeviceRecord
    ran: dict[str, Ran]

    @property
    def make(self) -> str:
        """What the devices of one check have in common."""
        return f"{self.machine.runtime}, {self.machine.machine}"


class Evidence:
    """Parts by name. folder: None to hold them in memory. key: of all that a part depends on, but for the device."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._held: dict[str, Mapping[str, Array]] = {}

    def has(self, name: str, key: str) -> bool:
        """Whether an earlier run finished it."""
        return self._folder is not None and sharded_arrays.matches(self._folder / f"{name}.npz", key)

    def write(self, name: str, key: str, part: Mapping[str, Array]) -> None:
        if self._folder:
            sharded_arrays.write(self._folder / f"{name}.npz", key, part)
        else:
            self._held[name] = part

    def read(self, name: str) -> Mapping[str, Array]:
        return sharded_arrays.read(self._folder / f"{name}.npz") if self._folder else self._held[name]

    def together(self, own: Mapping[str, Array], images: Mapping[str, int]) -> RecordArrays:
        """A record's arrays: its own, and those of its shards. images: how many each shard has, by its name."""
        if not self._folder:
            held = {key: array for name in images for key, array in self._held[name].items() if key not in ABOUT}
            return RecordArrays({**own, **held})
        files = tuple(
            ShardFile(f"{name}.npz", sha256((self._folder / f"{name}.npz").read_bytes()), count)
            for name, count in images.items()
        )
        return RecordArrays(ShardedArrays(own, self._folder, files))


def of_images(data: Dataset) -> dict[str, Array]:
    """Evidence of a shard's images without predictions."""
    return {
        DIGESTS: dataset.digests(data.images, data.labels, data.names),
        HASHES: dataset.content_hashes(data.images),
        GREY: np.array(dataset.grey_images(data.images)),
        SKIPPED: np.array(data.skipped, np.str_),
        **arrays.image_arrays(data.names, data.labels, data.input_means()),
    }


def of_answer(
    subject: Subject, data: Dataset, expected: Reference, answer: ShardAnswer, host: Mapping[str, Array]
) -> dict[str, Array]:
    """Evidence of a shard that a device answered. host: this machine's outputs by variant."""
    part = of_images(data) | arrays.reference_arrays(expected.outputs, expected.folded)
    part |= arrays.output_arrays(subject.spec.outputs)
    ran: dict[str, Ran] = {}
    for cell in subject.cells:
        if result := answer.outputs.results.get(str(cell)):
            ran[str(cell)] = result.ran
            if result.arrays:
                takes = subject.variants[cell.variant].input
                part |= arrays.answer_arrays(cell, result.arrays, takes, host.get(cell.variant))
    flipped = predictions.flipped(RecordArrays(part).predictions())
    answered = Answered(answer.machine, answer.device, ran)
    part[SOURCE] = np.array(shapes.encode(answered).decode())
    shown = np.empty((0, 1, 1, 1), np.uint8) if data.spec.input else data.images[flipped]
    return part | arrays.flipped_arrays(flipped, shown)
