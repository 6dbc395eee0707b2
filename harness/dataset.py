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
        decoded = pool.map(partial(_try_read, image_size=image_size), [path for path, _ in entries], chunksize=64)
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
        raise SetupError(f"{folder}: {_listing(bad)} cannot be used; mend or remove them, or pass --skip-bad")
    if not kept:
        raise SetupError(f"{folder}: expected images named <class>_<n>.jpg or <class>/<name>.jpg; there is none")
    return build(np.stack(images), [label for _, label in kept], [name for name, _ in kept], skipped=bad)


def build(
    images: npt.NDArray[np.uint8], labels: Sequence[int], names: Sequence[str], *, skipped: Sequence[str] = ()
) -> Dataset:
    """A dataset of the given arrays, with its hash over names, labels and pixels."""
    label_array = np.asarray(labels, np.int64)
    digest = hashlib.sha256()
    digest.update(repr((images.shape, tuple(names))).encode())
    digest.update(label_array.astype("<i8").tobytes())
    digest.update(np.ascontiguousarray(images).tobytes())
    return Dataset(images, label_array, tuple(names), digest.hexdigest(), tuple(skipped))


def take(data: Dataset, indices: npt.NDArray[np.int64]) -> Dataset:
    """The part of a dataset at the indices, in their order."""
    return build(data.images[indices], data.labels[indices].tolist(), [data.names[i] for i in indices])


def content_hashes(images: npt.NDArray[np.uint8]) -> list[str]:
    """Each image's SHA-256 over its pixels: equal where two images are."""
    return [hashlib.sha256(image.tobytes()).hexdigest() for image in images]


def read_image(path: Path, image_size: int = IMAGE_SIZE) -> npt.NDArray[np.uint8]:
    """One image by the module's rule, uint8 [size, size, 1]. Raises SetupError where it is not a usable image."""
    outcome = _try_read(path, image_size=image_size)
    if isinstance(outcome, str):
        raise SetupError(f"{path}: {outcome}; expected a readable image file")
    return outcome


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
        if path.is_dir():
            inner = [file for file in sorted(path.rglob("*")) if file.is_file() and not file.name.startswith(".")]
            label, what = path.name, f"{path.name}/ ({len(inner)} files, folder name"
        else:
            match = _FLAT_NAME.fullmatch(path.name)
            inner, label, what = [path], match[1] if match else "", f"{path.name} (name"
        if not re.fullmatch("[0-9]+", label):
            bad.append(f"{what} is not {'a class' if path.is_dir() else '<class>_<n>.<ext>'})")
        elif int(label) >= classes:
            bad.append(f"{what} says class {label}, the classes are 0-{classes - 1})")
        else:
            found += [(file, int(label)) for file in inner]
    return found, bad


def _try_read(path: Path, image_size: int) -> npt.NDArray[np.uint8] | str:
    """The image as uint8 [size, size, 1], or in a few words why not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own size warning: MAX_PIXELS is stricter
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    return f"{image.width}x{image.height} pixels, more than {MAX_PIXELS // 1_000_000} million"
                return _to_grey(image, image_size)
    except UnidentifiedImageError:
        return "empty file" if path.stat().st_size == 0 else "not an image"
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


def _listing(items: list[str]) -> str:
    shown = ", ".join(items[:3])
    more = f" and {len(items) - 3} more" if len(items) > 3 else ""
    return f"{len(items)} file{'s' if len(items) > 1 else ''}: {shown}{more}"
