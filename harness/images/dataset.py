"""Labelled images, read as a model takes them.

They come from a folder or Parquet (harness.images.shards). Every image becomes 8-bit grey or RGB of the model's size,
by one rule:

1. its EXIF orientation is applied; of several frames (MPO, GIF) the first counts; a JPEG of more than MAX_PIXELS is
   decoded at the largest of 1/2, 1/4 and 1/8 of its size that has no more;
2. 16-bit, 32-bit and float samples are scaled from their type's range to 0-255 (float: 0-1);
3. transparency, a palette's too, is laid on white; palette and CMYK become RGB (a CMYK JPEG holds inverted values,
   whether or not it has Adobe's mark, as Pillow and OpenCV take it; a CMYK TIFF does not);
4. for a grey model, colour becomes grey by ITU-R 601 luma; for an RGB model, grey is repeated in the three channels;
5. another size is resized whole, without keeping proportions, by Pillow's antialiased bilinear filter.

HEIC needs the extra `heic`, AVIF Pillow 11.3.
"""

from __future__ import annotations

import hashlib
import io
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from harness.core import cores
from harness.core.errors import SetupError
from harness.images import shards
from harness.images.shards import Entry, Source
from harness.images.spec import ModelSpec

MAX_PIXELS = 16_000_000  # unpacked at once, by each thread; a larger image is refused
MAX_PHOTO_PIXELS = 50_000_000  # of HEIC and AVIF, which cannot be unpacked smaller; of large ones one at a time
PHOTOS = ("HEIF", "AVIF")
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}  # brands, by which such files begin
_AVIF = {b"avif", b"avis"}
BATCH = 256
_alone = threading.Lock()  # one large photograph at a time
LEFT_OUT_SHOWN = 5
_SAMPLE_MAX = {"I;16": 65535, "I;16B": 65535, "I;16L": 65535, "I": 65535, "F": 1}


@dataclass(frozen=True)
class Dataset:
    """images: uint8 [N, height, width, channels], or float32 tensors [N, ...]; labels: int64 [N]; names: N paths below
    the folder.

    spec: of the model that they are read for. skipped: files that could not be used; left_out: hidden files and tables.
    """

    images: npt.NDArray[Any]
    labels: npt.NDArray[np.int64]
    names: tuple[str, ...]
    spec: ModelSpec
    sha256: str
    skipped: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def inputs(self) -> npt.NDArray[np.float32]:
        """All images as the model's input."""
        return self.spec.to_input(self.images)

    def batches(self, size: int = BATCH) -> Iterator[npt.NDArray[np.float32]]:
        """The same in parts, for sets that do not fit into memory as floats."""
        for start in range(0, len(self), size):
            yield self.spec.to_input(self.images[start : start + size])

    def input_means(self) -> npt.NDArray[np.float64]:
        """The mean of each image as float input [N]."""
        return np.concatenate([np.empty(0), *(self._means())])

    def _means(self) -> Iterator[npt.NDArray[np.float64]]:
        for part in self.batches():
            yield part.mean(axis=tuple(range(1, part.ndim)), dtype=np.float64)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of how the images were read."""
        return notes(content_hashes(self.images), grey_images(self.images), self.left_out)


def load(
    folder: Path,
    spec: ModelSpec,
    *,
    skip_bad: bool = False,
    labelled: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Dataset:
    """Every image of a folder or Parquet as a model takes it, in order. labelled: whether names say classes.

    skip_bad: leave out files that cannot be used, and list them in `skipped`, instead of refusing.
    progress: called with the images read so far and their total.
    Raises SetupError: no folder, no images, a wrong name or class, an unreadable image.
    """
    source = shards.open_source(folder, spec, labelled=labelled)
    read = _read(source.entries(), source.images, spec, source.bad, source.left_out, progress)
    if read.skipped and not skip_bad:
        raise SetupError(shards.cannot_be_used(folder, list(read.skipped)))
    if not len(read):
        raise SetupError(f"{folder}: {shards.EXPECTED}; there is none that can be used")
    return read


def in_shards(source: Source, size: int, spec: ModelSpec) -> Iterator[Dataset]:
    """A set's images, `size` at a time; those that cannot be used are listed in `skipped`."""
    entries = source.entries()
    for start in range(0, source.images, size):
        yield _read(islice(entries, size), min(size, source.images - start), spec)


def _read(
    entries: Iterator[Entry],
    total: int,
    spec: ModelSpec,
    bad: Sequence[str] = (),
    left_out: Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Dataset:
    """No more than BATCH files are in memory at a time."""
    images: npt.NDArray[Any] = np.empty((total, *spec.shape), spec.dtype)
    names: list[str] = []
    labels: list[int] = []
    skipped = list(bad)
    done = 0
    with ThreadPoolExecutor(cores.usable()) as pool:
        while batch := list(islice(entries, BATCH)):
            decoded = pool.map(partial(try_read, spec=spec), (content for _, _, content in batch))
            for (name, label, _), image in zip(batch, decoded, strict=True):
                if isinstance(image, str):
                    skipped.append(f"{name} ({image})")
                else:
                    images[len(names)] = image
                    names.append(name)
                    labels.append(label)
            done += len(batch)
            progress(done, total)
    return build(images[: len(names)], labels, names, spec, skipped=skipped, left_out=left_out)


def build(
    images: npt.NDArray[Any],
    labels: Sequence[int],
    names: Sequence[str],
    spec: ModelSpec,
    *,
    skipped: Sequence[str] = (),
    left_out: Sequence[str] = (),
) -> Dataset:
    """A dataset of the given arrays, with its hash over the images' digests."""
    label_array = np.asarray(labels, np.int64)
    digest = hashlib.sha256(digests(images, label_array, names).tobytes())
    return Dataset(images, label_array, tuple(names), spec, digest.hexdigest(), tuple(skipped), tuple(left_out))


def digests(images: npt.NDArray[Any], labels: npt.NDArray[np.int64], names: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Each image's SHA-256 over its shape, name, label and pixels, [N, 32]: shards can be hashed one by one."""
    hashes = [
        hashlib.sha256(repr((image.shape, name, label)).encode() + image.tobytes()).digest()
        for image, name, label in zip(images, names, labels.tolist(), strict=True)
    ]
    return np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, hashlib.sha256().digest_size)


def take(data: Dataset, indices: npt.NDArray[np.int64]) -> Dataset:
    """The part of a dataset at the indices, in their order."""
    return build(data.images[indices], data.labels[indices].tolist(), [data.names[i] for i in indices], data.spec)


def concatenate(first: Dataset, second: Dataset) -> Dataset:
    """The images of both, one after the other."""
    images, labels = np.concatenate([first.images, second.images]), [*first.labels.tolist(), *second.labels.tolist()]
    return build(images, labels, [*first.names, *second.names], first.spec)


def content_hashes(images: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """A hash of each image's pixels, [N]: equal where two images are."""
    hashes = b"".join(hashlib.sha256(image.tobytes()).digest()[:8] for image in images)
    return np.frombuffer(hashes, ">u8").astype(np.uint64)


def grey_images(images: npt.NDArray[Any]) -> int:
    """How many images of an RGB model are grey; 0 for another model."""
    if images.dtype != np.uint8 or images.shape[-1] == 1:
        return 0
    return sum(int((part == part[..., :1]).all(axis=(1, 2, 3)).sum()) for part in np.array_split(images, 64))


def notes(contents: npt.NDArray[np.uint64], grey: int, left_out: Sequence[str]) -> tuple[str, ...]:
    """What a person should know of how a set was read, by its images' content hashes; it may be read in shards."""
    lines = []
    if grey:
        lines.append(f"{grey} of {len(contents)} images are grey; the model takes RGB")
    if repeated := len(contents) - len(np.unique(contents)):
        lines.append(f"{repeated} of {len(contents)} images repeat another's pixels")
    if left_out:
        more = f" and {len(left_out) - LEFT_OUT_SHOWN} more names" if len(left_out) > LEFT_OUT_SHOWN else ""
        shown = f"{', '.join(left_out[:LEFT_OUT_SHOWN])}{more}"
        lines.append(f"hidden files, system files and tables are not among the images: {shown}")
    return tuple(lines)


def read_image(path: Path, spec: ModelSpec) -> npt.NDArray[Any]:
    """One image by the module's rule, uint8 of the spec's shape. Raises SetupError where it is not a usable image."""
    outcome = try_read(path, spec)
    if isinstance(outcome, str):
        raise SetupError(f"{path}: {outcome}; expected a readable image file")
    return outcome


def try_read(file: Path | bytes, spec: ModelSpec) -> npt.NDArray[Any] | str:
    """The image of a file or of its content as uint8 of the spec's shape, or in a few words why not. Of a tensor, whose
    content is its float32 numbers, these."""
    if spec.input:
        if isinstance(file, Path):
            return f"the model takes {spec.images}, no images"
        return np.frombuffer(file, np.float32).reshape(spec.shape)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own size warning: MAX_PIXELS is stricter
            with _open(file) as image:
                shown = f"{image.width}x{image.height}"
                _reduce(image)
                limit = MAX_PHOTO_PIXELS if image.format in PHOTOS else MAX_PIXELS
                if (pixels := image.width * image.height) > limit:
                    return f"{shown} pixels, more than {limit // 1_000_000} million"
                with _alone if pixels > MAX_PIXELS else nullcontext():
                    return _convert(image, spec)
    except UnidentifiedImageError:
        return _not_read(_head(file))
    except Image.DecompressionBombError:
        return f"more than {MAX_PIXELS // 1_000_000} million pixels"
    except (OSError, SyntaxError, ValueError, EOFError, ArithmeticError, LookupError) as error:
        return f"unreadable: {str(error).splitlines()[0] if str(error) else type(error).__name__}"


def _open(file: Path | bytes) -> Image.Image:
    """Raises UnidentifiedImageError for what Pillow cannot read."""
    if _brand(_head(file)) in _HEIC:
        with suppress(ModuleNotFoundError):
            import pillow_heif

            pillow_heif.register_heif_opener()
    return Image.open(io.BytesIO(file) if isinstance(file, bytes) else file)


def _head(file: Path | bytes) -> bytes:
    if isinstance(file, bytes):
        return file[:12]
    with file.open("rb") as opened:
        return opened.read(12)


def _brand(head: bytes) -> bytes:
    """By which a file of HEIC's family says what it is. Empty of any other."""
    return head[8:12] if head[4:8] == b"ftyp" else b""


def _not_read(head: bytes) -> str:
    """In a few words, why Pillow does not read a file that begins so."""
    if _brand(head) in _HEIC:
        return "HEIC, which needs pillow-heif: in the harness's folder, pip install '.[heic]'"
    if _brand(head) in _AVIF:
        return "AVIF, which needs Pillow 11.3 or newer: pip install -U pillow"
    return "not an image" if head else "empty file"


def _reduce(image: Image.Image) -> None:
    """Have a large JPEG decoded at a fraction of its size, which takes that fraction's memory."""
    pixels = image.width * image.height
    if image.format in ("JPEG", "MPO") and pixels > MAX_PIXELS:
        factor = next((factor for factor in (2, 4) if pixels <= MAX_PIXELS * factor**2), 8)
        image.draft(None, (image.width // factor, image.height // factor))


def _convert(image: Image.Image, spec: ModelSpec) -> npt.NDArray[np.uint8]:
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode in _SAMPLE_MAX:
        samples = np.asarray(image, np.float64) * 255 / _SAMPLE_MAX[image.mode]
        if not np.isfinite(samples).all():
            raise ValueError("NaN or infinite samples")
        image = Image.fromarray(np.clip(np.round(samples), 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    mode = "L" if spec.channels == 1 else "RGB"
    if image.mode != mode:
        image = image.convert("RGB").convert(mode)
    height, width = spec.image_size
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8).reshape(spec.shape)
