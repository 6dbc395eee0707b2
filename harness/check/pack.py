"""A check in one file: variants, images, reference outputs and limits, for a machine without TensorFlow.

The file runs itself: see pack_main. It holds a wheel of the harness, pack.json, manifest.json, the .tflite files, and
shards/<number>.npz with each shard's images and the reference's outputs on them.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from harness.artifacts import manifest
from harness.artifacts.reference import Reference
from harness.check import pack_main, wheel
from harness.check.references import References
from harness.check.subject import Subject, select
from harness.core import npz, shapes
from harness.core.errors import SetupError
from harness.core.files import replacing
from harness.core.npz import Array
from harness.core.shapes import Count, Shape
from harness.images import dataset, shards
from harness.images.dataset import Dataset
from harness.images.shards import Entry, Source
from harness.images.spec import ModelSpec
from harness.judge.policy import Policy

ABOUT = "pack.json"
MAX_BYTES = 1_000_000_000  # of a file in a pack
MAX_FILES = 100_000


class About(Shape, tag_field="schema", tag="harness-pack/2"):
    """model, data: the Keras model and the images' folder, as they were named. shards: the hash of each one's data."""

    model: str
    model_sha256: str
    data: str
    images: Count
    shards: tuple[str, ...]
    skipped: tuple[str, ...]
    left_out: tuple[str, ...]
    policy: Policy


def write(subject: Subject, source: Source, references: References, path: Path, *, skip_bad: bool) -> int:
    """The number of images packed. Raises SetupError: images that cannot be used (unless skip_bad), no way to write."""
    images, hashes, skipped = 0, [], list(source.bad)
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, data in enumerate(_usable(source, subject.spec, skipped)):
            if skipped and not skip_bad:
                raise SetupError(shards.cannot_be_used(source.path, skipped))
            expected = references.obtain(data)
            part = {"images": data.images, "labels": data.labels, "names": np.array(data.names, np.str_)}
            part |= {"reference": expected.outputs} | ({} if expected.folded is None else {"folded": expected.folded})
            archive.writestr(_shard_file(number), npz.encode(part))
            hashes.append(data.sha256)
            images += len(data)
        about = About(
            subject.model,
            subject.model_sha256,
            str(source.path),
            images,
            tuple(hashes),
            tuple(skipped),
            source.left_out,
            subject.limits,
        )
        archive.writestr(ABOUT, shapes.encode(about))
        archive.writestr(manifest.FILE, manifest.encode(dict(subject.variants)))
        for kind, variant in subject.variants.items():
            archive.writestr(variant.file, subject.contents[kind])
        archive.writestr("__main__.py", Path(pack_main.__file__).read_text())
        archive.writestr(*wheel.build())
    return images


def _usable(source: Source, spec: ModelSpec, skipped: list[str]) -> Iterator[Dataset]:
    """Shards of the usual size, without the images that cannot be used, which are added to `skipped`."""
    size = shards.usual_size(spec)
    waiting = dataset.build(np.empty((0, *spec.shape), spec.dtype), [], [], spec)
    for data in dataset.in_shards(source, size, spec):
        skipped += data.skipped
        waiting = dataset.concatenate(waiting, data)
        if len(waiting) >= size:
            yield dataset.take(waiting, np.arange(size))
            waiting = dataset.take(waiting, np.arange(size, len(waiting)))
    if len(waiting):
        yield waiting


class Pack:
    """What `write` packed: a subject, its images (a Source) and their reference outputs. Nothing is unpacked to disk.

    kinds: of the variants to check; None: all. Raises SetupError: no such file, damaged, not written by us, no such
    variants.
    """

    def __init__(self, path: Path, kinds: tuple[str, ...] | None = None) -> None:
        self._file = path
        try:
            self._archive = zipfile.ZipFile(path)
        except OSError as error:
            raise SetupError(f"{path}: expected what harness device pack wrote ({error.strerror or error})") from error
        except zipfile.BadZipFile as error:
            raise self._damaged(error) from error
        if (count := len(self._archive.infolist())) > MAX_FILES:
            raise self._damaged(f"{count} files in it, expected at most {MAX_FILES}")
        self._about = about = shapes.decode(self._read(ABOUT), About, f"{path}: {ABOUT}")
        variants = select(manifest.decode(self._read(manifest.FILE), f"{path}: {manifest.FILE}"), kinds, path)
        manifest.spec_of(variants, path)
        contents = {kind: self._read(variant.file) for kind, variant in variants.items()}
        for kind, variant in variants.items():
            manifest.check(variant, contents[kind], about.model_sha256, f"{path}: {variant.file}")
        self.subject = Subject(variants, contents, about.model, about.model_sha256, about.policy)
        self.path, self.images, self.left_out = Path(about.data), about.images, about.left_out
        self.bad = list(about.skipped)

    def names(self) -> Iterator[str]:
        for number in range(len(self._about.shards)):
            yield from map(str, self._shard(number)["names"])

    def entries(self) -> Iterator[Entry]:
        for number in range(len(self._about.shards)):
            part = self._shard(number)
            for name, label, image in zip(part["names"], part["labels"], part["images"], strict=True):
                yield str(name), int(label), _png(image)

    def obtain(self, data: Dataset) -> Reference:
        """The reference's outputs on a shard of the usual size."""
        if data.sha256 not in self._about.shards:
            raise self._damaged("its images are not those it was packed with")
        part = self._shard(self._about.shards.index(data.sha256))
        return Reference(part["reference"], self._about.model_sha256, data.sha256, data.spec, part.get("folded"))

    def stop(self) -> None:
        """Nothing is computed."""

    def _shard(self, number: int) -> dict[str, Array]:
        spec, size = self.subject.spec, shards.usual_size(self.subject.spec)
        part = npz.read(self._read(_shard_file(number)), f"{self._file}: {_shard_file(number)}")
        images = min(size, self.images - number * size)
        expected = {"names": (), "labels": (), "images": spec.shape, "reference": (spec.width,)}
        for name, shape in expected.items():
            if name not in part or part[name].shape != (images, *shape):
                raise self._damaged(f"{_shard_file(number)}: expected {name} of {images} images")
        if part["images"].dtype != spec.dtype or part["labels"].dtype.kind != "i":
            raise self._damaged(
                f"{_shard_file(number)}: expected {spec.dtype.__name__} images, whole numbers as labels"
            )
        return part

    def _read(self, name: str) -> bytes:
        try:
            if self._archive.getinfo(name).file_size > MAX_BYTES:
                raise self._damaged(f"{name}: larger than {MAX_BYTES / 1e6:,.0f} MB")
            return self._archive.read(name)
        except (OSError, KeyError, EOFError, RuntimeError, NotImplementedError) as error:
            raise self._damaged(error) from error
        except (zipfile.BadZipFile, zlib.error) as error:
            raise self._damaged(error) from error

    def _damaged(self, why: object) -> SetupError:
        return SetupError(f"{self._file}: damaged, or not what harness device pack wrote ({why}); pack again")


def _shard_file(number: int) -> str:
    return f"shards/{number:06}.npz"


def _png(image: Array) -> bytes:
    """An image as a file; reading it gives the same pixels. A tensor is its numbers."""
    if image.dtype != np.uint8:
        return image.tobytes()
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG", compress_level=1)
    return file.getvalue()
