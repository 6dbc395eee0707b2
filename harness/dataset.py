"""Labelled images, and the one place where pixels become tensors.

Two layouts are read: `<folder>/<class>_<n>.<ext>` and `<folder>/<class>/<any name>`. Hidden files are ignored.
Every image becomes 8-bit grey of the model's size, by one rule:

1. its EXIF orientation is applied; of several frames the first counts;
2. 16-bit, 32-bit and float samples are scaled from their type's range to 0-255 (float: 0-1);
3. transparency is laid on white; colour, palette and CMYK become grey by ITU-R 601 luma;
4. another size is resized whole, without keeping proportions, by Pillow's antialiased bilinear filter.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from harness.errors import SetupError

CLASSES = 11
IMAGE_SIZE = 28
MAX_PIXELS = 16_000_000  # a larger image is refused before it is unpacked
EXPECTED = "expected images named <class>_<n>.jpg or <class>/<name>.jpg"
_FLAT_NAME = re.compile(r"(\d+)_(\d+)\.[A-Za-z0-9]+")
_SAMPLE_MAX = {"I;16": 65535, "I;16B": 65535, "I;16L": 65535, "I": 65535, "F": 1}


@dataclass(frozen=True)
class Dataset:
    """images: uint8 [N, size, size, 1]; labels: int64 [N]; names: N paths below the folder."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    names: tuple[str, ...]
    sha256: str
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)


def to_input(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Pixels as the model's input: float32 of the same shape, 0..1, paper bright."""
    return images.astype(np.float32) / np.float32(255)


def load(
    folder: Path,
    *,
    classes: int = CLASSES,
    image_size: int = IMAGE_SIZE,
    skip_bad: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Dataset:
    """Every image of a folder, sorted by name.

    skip_bad: leave out files that cannot be used, and list them in `skipped`, instead of refusing.
    progress: called with the images read so far and their total.
    Raises SetupError: no folder, no images, a wrong name or class, an unreadable image.
    """
    entries, bad = _entries(folder, classes)
    images: list[npt.NDArray[np.uint8]] = []
    kept: list[tuple[str, int]] = []
    with ThreadPoolExecutor() as pool:
        decoded = pool.map(partial(try_read, image_size=image_size), [path for path, _ in entries], chunksize=64)
        for index, ((path, label), outcome) in enumerate(zip(entries, decoded, strict=True), start=1):
            name = path.relative_to(folder).as_posix()
            if isinstance(outcome, str):
                bad.append(f"{name} ({outcome})")
            else:
                images.append(outcome)
                kept.append((name, label))
            if index % 64 == 0 or index == len(entries):
                progress(index, len(entries))
    if bad and not skip_bad:
        raise SetupError(cannot_be_used(folder, bad))
    if not kept:
        raise SetupError(f"{folder}: {EXPECTED}; there is none")
    return build(np.stack(images), [label for _, label in kept], [name for name, _ in kept], skipped=bad)


def build(
    images: npt.NDArray[np.uint8], labels: Sequence[int], names: Sequence[str], *, skipped: Sequence[str] = ()
) -> Dataset:
    """A dataset of the given arrays, with its hash over the images' digests."""
    label_array = np.asarray(labels, np.int64)
    digest = hashlib.sha256(digests(images, label_array, names).tobytes())
    return Dataset(images, label_array, tuple(names), digest.hexdigest(), tuple(skipped))


def digests(
    images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], names: Sequence[str]
) -> npt.NDArray[np.uint8]:
    """Each image's SHA-256 over its shape, name, label and pixels, [N, 32]: shards can be hashed one by one."""
    found = [
        hashlib.sha256(repr((image.shape, name, label)).encode() + image.tobytes()).digest()
        for image, name, label in zip(images, names, labels.tolist(), strict=True)
    ]
    return np.frombuffer(b"".join(found), np.uint8).reshape(-1, hashlib.sha256().digest_size)


def take(data: Dataset, indices: npt.NDArray[np.int64]) -> Dataset:
    """The part of a dataset at the indices, in their order."""
    return build(data.images[indices], data.labels[indices].tolist(), [data.names[i] for i in indices])


def content_hashes(images: npt.NDArray[np.uint8]) -> list[str]:
    """Each image's SHA-256 over its pixels: equal where two images are."""
    return [hashlib.sha256(image.tobytes()).hexdigest() for image in images]


def read_image(path: Path, image_size: int = IMAGE_SIZE) -> npt.NDArray[np.uint8]:
    """One image by the module's rule, uint8 [size, size, 1]. Raises SetupError where it is not a usable image."""
    outcome = try_read(path, image_size=image_size)
    if isinstance(outcome, str):
        raise SetupError(f"{path}: {outcome}; expected a readable image file")
    return outcome


def cannot_be_used(where: Path, bad: list[str]) -> str:
    """In one line, the files that cannot be used, and what to do."""
    shown = ", ".join(bad[:3])
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    many = f"{len(bad)} file{'s' if len(bad) > 1 else ''}: {shown}{more}"
    return f"{where}: {many} cannot be used; mend or remove them, or pass --skip-bad"


def _entries(folder: Path, classes: int) -> tuple[list[tuple[Path, int]], list[str]]:
    """The images and their labels in name order, and the files whose name or folder says no valid class."""
    if not folder.is_dir():
        raise SetupError(
            f"{folder}: expected a folder of images; there is none (make one, or name another with --data)"
        )
    found: list[tuple[Path, int]] = []
    bad: list[str] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        inner = [path]
        if path.is_dir():
            inner = [file for file in sorted(path.rglob("*")) if file.is_file() and not file.name.startswith(".")]
        label = label_of(path.name, path.is_dir(), classes)
        if isinstance(label, str):
            bad.append(f"{path.name}/ ({len(inner)} files, {label})" if path.is_dir() else f"{path.name} ({label})")
        else:
            found += [(file, label) for file in inner]
    return found, bad


def label_of(name: str, is_folder: bool, classes: int = CLASSES) -> int | str:
    """The class that a folder's or a file's name says, or in a few words why it says none."""
    match = None if is_folder else _FLAT_NAME.fullmatch(name)
    text = name if is_folder else match[1] if match else ""
    if not re.fullmatch("[0-9]+", text):
        return "folder name is not a class" if is_folder else "name is not <class>_<n>.<ext>"
    if int(text) >= classes:
        return f"{'folder ' * is_folder}name says class {text}, the classes are 0-{classes - 1}"
    return int(text)


def try_read(file: Path | bytes, image_size: int = IMAGE_SIZE) -> npt.NDArray[np.uint8] | str:
    """The image of a file or of its content as uint8 [size, size, 1], or in a few words why not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own size warning: MAX_PIXELS is stricter
            with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
                if image.width * image.height > MAX_PIXELS:
                    return f"{image.width}x{image.height} pixels, more than {MAX_PIXELS // 1_000_000} million"
                return _to_grey(image, image_size)
    except UnidentifiedImageError:
        size = len(file) if isinstance(file, bytes) else file.stat().st_size
        return "not an image" if size else "empty file"
    except Image.DecompressionBombError:
        return f"more than {MAX_PIXELS // 1_000_000} million pixels"
    except (OSError, SyntaxError, ValueError, EOFError, ArithmeticError, LookupError) as error:
        return f"unreadable: {str(error).splitlines()[0] if str(error) else type(error).__name__}"


def _to_grey(image: Image.Image, size: int) -> npt.NDArray[np.uint8]:
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
    if image.mode != "L":
        image = image.convert("RGB").convert("L")
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8)[..., np.newaxis]
