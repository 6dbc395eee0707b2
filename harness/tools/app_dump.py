"""What an app wrote of a bundle's images: the tensors that it fed and its outputs, read as data.

JSON lines, an object an image: {"image": NAME, "input": [...], "output": [...]}; or an .npz with `images` (names),
`input` [N, ...] and `output` [N, ...]. Either tensor may be left out, of all images alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from harness.core import npz, shapes
from harness.core.errors import SetupError
from harness.core.files import read_capped
from harness.core.shapes import Shape
from harness.tools.golden import Golden

MAX_BYTES = 500_000_000
EXPECTED = "what an app wrote of a bundle's images"
MAX_VALUES = 100_000_000  # of one tensor of one image
NPZ = ".npz"
ARRAYS = ("images", "input", "output", "bundle")

Array = npt.NDArray[Any]
Numbers = Annotated[list[float | list[Any]], Meta(max_length=MAX_VALUES)]


class DumpLine(Shape):
    """One image: its name in the bundle, the tensor that the app fed, flat or nested, and what it made of the model's
    output. bundle: which bundle it was run on, from its golden.json; may be left out."""

    image: str
    input: Numbers | None = None
    output: Numbers | None = None
    bundle: str | None = None


@dataclass(frozen=True)
class Dump:
    """places: of the images in the bundle, in the dump's order. inputs, outputs: [N, values]; None if not written."""

    places: tuple[int, ...]
    inputs: Array | None
    outputs: Array | None


def read(path: Path, golden: Golden) -> Dump:
    """A dump of some or all of a bundle's images.

    Raises SetupError: missing, truncated, of another bundle or other images, an image twice, tensors of other sizes,
    NaN or infinity.
    """
    names, bundles, parts = _npz(path) if path.suffix == NPZ else _lines(path)
    if not names:
        raise SetupError(f"{path}: no images; expected a line for each, see the bundle's README.md")
    if other := next((bundle for bundle in bundles if bundle not in (None, golden.bundle)), None):
        raise SetupError(f"{path}: of bundle {other!r}, this one is {golden.bundle!r}; name its folder with --golden")
    known = {image.name: place for place, image in enumerate(golden.images)}
    seen: set[str] = set()
    for name in names:
        if name not in known:
            raise SetupError(
                f"{path}: {name!r} is not an image of this bundle, whose first is {golden.images[0].name!r}; name the "
                "bundle's folder with --golden"
            )
        if name in seen:
            raise SetupError(f"{path}: {name!r} is in it twice; expected one input and one output of each image")
        seen.add(name)
    classes = len(golden.spec.class_names)
    sizes = {"input": {int(np.prod(golden.spec.shape))}, "output": {classes, int(np.prod(golden.output.shape))}}
    for part, allowed in sizes.items():
        values = parts[part]
        if values is not None and values.shape[1] not in allowed:
            raise SetupError(
                f"{path}: {part} has {values.shape[1]} values an image, the model's has {max(allowed)}; a dump of "
                "another bundle?"
            )
    if parts["input"] is None and parts["output"] is None:
        raise SetupError(f"{path}: neither input nor output; expected one of them or both for each image")
    return Dump(tuple(known[name] for name in names), parts["input"], parts["output"])


_Parts = tuple[list[str], list[str | None], Mapping[str, Array | None]]


def _lines(path: Path) -> _Parts:
    names, bundles = [], []
    tensors: dict[str, list[Array | None]] = {"input": [], "output": []}
    if path.is_file() and path.stat().st_size > MAX_BYTES:  # before it is read
        raise SetupError(f"{path}: expected {EXPECTED}, of at most {MAX_BYTES / 1e6:g} MB")
    content = read_capped(path, MAX_BYTES, EXPECTED)
    for number, text in enumerate(content.split(b"\n"), start=1):
        if not text.strip():
            continue
        where = f"{path}: line {number}"
        try:
            line = shapes.decode(text, DumpLine, where, "write the dump again")
        except SetupError as error:
            if re.search(rb"[:,\[]\s*-?(NaN|nan|Infinity|inf)\b", text):
                raise SetupError(f"{where}: holds NaN or infinity; expected finite numbers") from error
            raise
        names.append(line.image)
        bundles.append(line.bundle)
        for part, values in tensors.items():
            numbers = getattr(line, part)
            values.append(None if numbers is None else _flat(numbers, f"{where}: {part}"))
    return names, bundles, {part: _stacked(values, part, path) for part, values in tensors.items()}


def _flat(numbers: list[Any], where: str) -> Array:
    try:
        values = np.array(numbers, np.float64)
    except (ValueError, TypeError) as error:
        raise SetupError(f"{where} holds lists of different sizes; expected a flat list of numbers") from error
    return _finite(values.reshape(-1), where)


def _stacked(values: list[Array | None], part: str, path: Path) -> Array | None:
    tensors = [tensor for tensor in values if tensor is not None]
    if not tensors:
        return None
    if len(tensors) < len(values):
        raise SetupError(f"{path}: {part} of {len(tensors)} of {len(values)} images; expected it of all or of none")
    if len(sizes := {len(tensor) for tensor in tensors}) > 1:
        raise SetupError(f"{path}: {part} has {min(sizes)} values in one image, {max(sizes)} in another")
    return np.stack(tensors)


def _npz(path: Path) -> _Parts:
    try:
        with path.open("rb") as file:
            arrays = npz.read(file, str(path), max_bytes=MAX_BYTES)
    except OSError as error:
        raise SetupError(f"{path}: expected {EXPECTED} ({error.strerror})") from error
    for name in arrays:
        shapes.check_name(name, ARRAYS, str(path), "array")
    names = arrays.get("images")
    if names is None or names.ndim != 1 or names.dtype.kind not in "US":
        raise SetupError(f"{path}: expected an array `images` of names, and `input` or `output` or both")
    listed = [name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in names.tolist()]
    parts = {}
    for part in ("input", "output"):
        values = arrays.get(part)
        if values is not None and (values.ndim < 2 or len(values) != len(listed)):
            raise SetupError(
                f"{path}: {part} of shape {list(values.shape)}; expected one for each of {len(listed)} images"
            )
        if values is not None and values.dtype.kind not in "iuf":
            raise SetupError(f"{path}: {part} holds {values.dtype}; expected numbers")
        parts[part] = None if values is None else _finite(values.reshape(len(values), -1), f"{path}: {part}")
    bundle = arrays.get("bundle")
    return listed, [None if bundle is None else str(bundle)], parts


def _finite(values: Array, where: str) -> Array:
    if not np.isfinite(values).all():
        raise SetupError(f"{where} holds NaN or infinity; expected finite numbers")
    return values
