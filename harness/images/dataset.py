"""Labelled images, read as a model takes them.

Two layouts are read: `<folder>/<class>_<n>.<ext>` and `<folder>/<class>/<any name>`, a class written as its name or
its number. Hidden files are ignored. Every image becomes 8-bit grey or RGB of the model's size, by one rule:

1. its EXIF orientation is applied; of several frames the first counts;
2. 16-bit, 32-bit and float samples are scaled from their type's range to 0-255 (float: 0-1);
3. transparency is laid on white; palette and CMYK become RGB;
4. for a grey model, colour becomes grey by ITU-R 601 luma; for an RGB model, grey is repeated in the three channels;
5. another size is resized whole, without keeping proportions, by Pillow's antialiased bilinear filter.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from harness.core.errors import SetupError
from harness.images.spec import ModelSpec

MAX_PIXELS = 16_000_000  # a larger image is refused before it is unpacked
BATCH = 256
EXPECTED = "expected images named <class>_<n>.jpg or <class>/<name>.jpg"
_FLAT_NAME = re.compile(r"(.+)_(\d+)\.[A-Za-z0-9]+")
_SAMPLE_MAX = {"I;16": 65535, "I;16B": 65535, "I;16L": 65535, "I": 65535, "F": 1}


@dataclass(frozen=True)
class Dataset:
    """images: uint8 [N, height, width, channels]; labels: int64 [N]; names: N paths below the folder.

    spec: of the model that they are read for.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    names: tuple[str, ...]
    spec: ModelSpec
    sha256: str
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def inputs(self) -> npt.NDArray[np.float32]:
        """All images as the model's input."""
        return self.spec.to_input(self.images)

    def batches(self, size: int = BATCH) -> Iterator[npt.NDArray[np.float32]]:
        """The same in parts, for sets that do not fit into memory as floats."""
        for start in range(0, len(self), size):
            yield self.spec.to_input(self.images[start : start + size])

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of how the images were read."""
        if self.spec.channels == 1:
            return ()
        grey = sum(int((part == part[..., :1]).all(axis=(1, 2, 3)).sum()) for part in np.array_split(self.images, 64))
        return (f"{grey} of {len(self)} images are grey; the model takes RGB",) if grey else ()


def load(
    folder: Path,
    spec: ModelSpec,
    *,
    skip_bad: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Dataset:
    """Every image of a folder as a model takes it, sorted by name.

    skip_bad: leave out files that cannot be used, and list them in `skipped`, instead of refusing.
    progress: called with the images read so far and their total.
    Raises SetupError: no folder, no images, a wrong name or class, an unreadable image.
    """
    entries, bad = _entries(folder, spec)
    images: list[npt.NDArray[np.uint8]] = []
    kept: list[tuple[str, int]] = []
    with ThreadPoolExecutor() as pool:
        decoded = pool.map(partial(try_read, spec=spec), [path for path, _ in entries], chunksize=64)
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
    return build(np.stack(images), [label for _, label in kept], [name for name, _ in kept], spec, skipped=bad)


def build(
    images: npt.NDArray[np.uint8],
    labels: Sequence[int],
    names: Sequence[str],
    spec: ModelSpec,
    *,
    skipped: Sequence[str] = (),
) -> Dataset:
    """A dataset of the given arrays, with its hash over the images' digests."""
    label_array = np.asarray(labels, np.int64)
    digest = hashlib.sha256(digests(images, label_array, names).tobytes())
    return Dataset(images, label_array, tuple(names), spec, digest.hexdigest(), tuple(skipped))


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
    return build(data.images[indices], data.labels[indices].tolist(), [data.names[i] for i in indices], data.spec)


def content_hashes(images: npt.NDArray[np.uint8]) -> list[str]:
    """Each image's SHA-256 over its pixels: equal where two images are."""
    return [hashlib.sha256(image.tobytes()).hexdigest() for image in images]


def read_image(path: Path, spec: ModelSpec) -> npt.NDArray[np.uint8]:
    """One image by the module's rule, uint8 of the spec's shape. Raises SetupError where it is not a usable image."""
    outcome = try_read(path, spec)
    if isinstance(outcome, str):
        raise SetupError(f"{path}: {outcome}; expected a readable image file")
    return outcome


def cannot_be_used(where: Path, bad: list[str]) -> str:
    """In one line, the files that cannot be used, and what to do."""
    shown = ", ".join(bad[:3])
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    many = f"{len(bad)} file{'s' if len(bad) > 1 else ''}: {shown}{more}"
    return f"{where}: {many} cannot be used; mend or remove them, or pass --skip-bad"


def _entries(folder: Path, spec: ModelSpec) -> tuple[list[tuple[Path, int]], list[str]]:
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
        label = label_of(path.name, path.is_dir(), spec)
        if isinstance(label, str):
            bad.append(f"{path.name}/ ({len(inner)} files, {label})" if path.is_dir() else f"{path.name} ({label})")
        else:
            found += [(file, label) for file in inner]
    return found, bad


def label_of(name: str, is_folder: bool, spec: ModelSpec) -> int | str:
    """The class that a folder's or a file's name says, or in a few words why it says none."""
    match = None if is_folder else _FLAT_NAME.fullmatch(name)
    if not is_folder and not match:
        return "name is not <class>_<n>.<ext>"
    text = match[1] if match else name
    label = spec.label(text)
    return f"{'folder ' * is_folder}name says class {text}; {spec.nearest(text)}" if label is None else label


def try_read(file: Path | bytes, spec: ModelSpec) -> npt.NDArray[np.uint8] | str:
    """The image of a file or of its content as uint8 of the spec's shape, or in a few words why not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own size warning: MAX_PIXELS is stricter
            with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
                if image.width * image.height > MAX_PIXELS:
                    return f"{image.width}x{image.height} pixels, more than {MAX_PIXELS // 1_000_000} million"
                return _convert(image, spec)
    except UnidentifiedImageError:
        size = len(file) if isinstance(file, bytes) else file.stat().st_size
        return "not an image" if size else "empty file"
    except Image.DecompressionBombError:
        return f"more than {MAX_PIXELS // 1_000_000} million pixels"
    except (OSError, SyntaxError, ValueError, EOFError, ArithmeticError, LookupError) as error:
        return f"unreadable: {str(error).splitlines()[0] if str(error) else type(error).__name__}"


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
