"""What a model takes and gives: its images' size and channels, the numbers that pixels become, its classes' names.

A model of something else, such as sound, takes a tensor: size and channels are 0, and an "image" is one example. Size,
channels and the number of classes are read from the model; the rest is told by a TOML file (ModelConfig).
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from msgspec import structs

from harness.core import shapes
from harness.core.errors import SetupError
from harness.core.shapes import Shape

NAMES_SHOWN = 12
UNLABELLED = -1  # the label of an image whose class is not known
UNKNOWN = "?"  # the name of such a class
COLOURS = {1: "grey", 3: "RGB"}  # by the number of channels


OutputKind = Literal["classes", "labels", "tensor"]
InputKind = Literal["images", "tensor"]


class Input(Shape):
    """A tensor that a model takes instead of images. shape: without the batch."""

    name: str
    shape: tuple[int, ...]


class Output(Shape):
    """One output of a model that gives other things than one class an image. shape: without the batch.

    kind: classes, of which there is one output at most; independent labels, each a probability; or any tensor, whose
    numbers are compared.
    """

    name: str
    kind: OutputKind
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return prod(self.shape)


class ModelConfig(Shape):
    """What a model's file does not tell: the keys of <model>.toml, each of which may be left out."""

    class_names: tuple[str, ...] = ()  # in the order of the outputs; empty: 0, 1, 2 ...
    pixel_range: tuple[float, float] | None = None  # what the pixels 0 and 255 become; None: by the model, else [0, 1]
    mean: tuple[float, ...] = ()  # of each channel, then subtracted; empty: 0
    std: tuple[float, ...] = ()  # of each channel, then divided by; empty: 1
    image_size: tuple[int, int] | None = None  # height, width: only for a model that takes any
    output: OutputKind | None = None  # what the model's only output is, where its last layer does not tell
    input: InputKind | None = None  # what it takes; None: images, if its shape may be theirs


@dataclass(frozen=True)
class ModelSignature:
    """What a model's own file says. image_size: height, width; None if it takes any. channels: 0 if its input has not
    the shape of images. input: None if a size of its shape is not known."""

    image_size: tuple[int, int] | None
    channels: int
    outputs: tuple[Output, ...]
    pixel_range: tuple[float, float] | None = None  # that its first layers were made for; None if they do not tell
    pixel_reason: str = ""
    input: Input | None = None

    @property
    def classes(self) -> int:
        """How many it gives; 0 if none of its outputs is classes. A single number stands for two."""
        return next((max(2, output.size) for output in self.outputs if output.kind == "classes"), 0)

    def fits(self, spec: ModelSpec) -> bool:
        """Whether a model of this signature is one that the spec describes."""
        if spec.input:
            if not self.input or self.input.shape != spec.input.shape:
                return False
        elif (self.image_size or spec.image_size, self.channels) != (spec.image_size, spec.channels):
            return False
        if not spec.outputs:
            return len(self.outputs) == 1 and max(2, self.outputs[0].size) == len(spec.class_names)
        return [output.shape for output in self.outputs] == [output.shape for output in spec.outputs]

    def __str__(self) -> str:
        if self.input and not self.channels:
            return f"{self.input.name} {list(self.input.shape)}, {' and '.join(self._gives)}"
        size = f"{self.image_size[1]}x{self.image_size[0]}" if self.image_size else "any size of"
        return f"{size} {COLOURS.get(self.channels, f'{self.channels}-channel')} images, {' and '.join(self._gives)}"

    @property
    def _gives(self) -> list[str]:
        classes = [f"{self.classes} classes"] * bool(self.classes)
        classes += [f"{output.size} labels" for output in self.outputs if output.kind == "labels"]
        return classes + [f"{output.name} {list(output.shape)}" for output in self.outputs if output.kind == "tensor"]


class ModelSpec(Shape, dict=True):
    """What a model takes and gives. image_size: height, width. class_names: empty if it gives no classes. input: a
    tensor, if it takes no images; then image_size and channels are 0."""

    image_size: tuple[int, int]
    channels: int
    class_names: tuple[str, ...]  # of its output that is classes
    pixel_range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    outputs: tuple[Output, ...] = ()  # empty if its only output is classes
    input: Input | None = None
    label_names: tuple[str, ...] = ()  # of its output that is labels

    def __post_init__(self) -> None:
        _check(self)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image: height, width, channels; of a tensor its own."""
        return self.input.shape if self.input else (*self.image_size, self.channels)

    @property
    def dtype(self) -> type[np.generic]:
        """Of images as a dataset holds them."""
        return np.float32 if self.input else np.uint8

    def random(self, count: int) -> npt.NDArray[Any]:
        """Random images, or numbers of 0 to 1, as a dataset holds them; the same ones every time."""
        rng = np.random.default_rng(0)
        if self.input:
            return rng.random((count, *self.shape), np.float32)
        return rng.integers(0, 256, (count, *self.shape), np.uint8)

    @property
    def width(self) -> int:
        """How many numbers it gives for an image, those of all its outputs together."""
        return sum(output.size for output in self.outputs) or len(self.class_names)

    @property
    def images(self) -> str:
        """In words, what images it takes."""
        if self.input:
            return f"{self.input.name} {list(self.input.shape)}"
        height, width = self.image_size
        return f"{width}x{height} {COLOURS[self.channels]} images"

    def __str__(self) -> str:
        scaled = [
            f", {key} {', '.join(f'{n:g}' for n in own)}" for key in ("mean", "std") if (own := getattr(self, key))
        ]
        low, high = self.pixel_range
        gives = [listed(self.class_names)] * bool(self.class_names)
        gives += [f"labels {listed(self.label_names)}"] * bool(self.label_names)
        gives += [f"{output.name} {list(output.shape)}" for output in self.outputs if output.kind == "tensor"]
        if self.input:
            return f"{self.images}; {'; '.join(gives)}"
        return f"{self.images}, pixels {low:g} to {high:g}{''.join(scaled)}; {'; '.join(gives)}"

    @property
    def signature(self) -> ModelSignature:
        outputs = self.outputs or (only_classes(len(self.class_names)),)
        return ModelSignature(self.image_size, self.channels, outputs, self.pixel_range, input=self.input)

    def to_input(self, pixels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Pixels [..., height, width, channels] as the model's input: float32 of the same shape; tensors stay."""
        if self.input:
            return np.asarray(pixels, np.float32)
        inputs = np.empty(pixels.shape, np.float32)
        for channel in range(self.channels):
            inputs[..., channel] = self._values[channel][pixels[..., channel]]
        return inputs

    @property
    def input_range(self) -> tuple[float, float]:
        """The least and the greatest number that a pixel can become."""
        return float(self._values.min()), float(self._values.max())

    def label(self, text: str) -> int | None:
        """Class index of a name or number. None if unknown."""
        label = self._labels.get(text)
        return self._labels.get(str(int(text))) if label is None and text.isdecimal() else label

    def nearest(self, text: str) -> str:
        """In words, which classes there are: for a name that is none."""
        near = difflib.get_close_matches(text, self.class_names, n=1)
        if near and not text.isdecimal():
            return f"did you mean {near[0]}?"
        return f"the classes are {listed(self.class_names)}"

    def same_input(self, other: ModelSpec) -> bool:
        """Whether both make the same tensors of the same images."""
        return structs.replace(self, class_names=other.class_names) == other

    def to_toml(self) -> str:
        """The config as TOML; JSON's arrays are TOML's, too."""
        keys = {key: value for key, value in structs.asdict(self).items() if key in _CONFIG_KEYS and value}
        return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in keys.items())

    @cached_property
    def _values(self) -> npt.NDArray[np.float32]:
        """What each pixel value becomes, [channels, 256]; computed in float64."""
        low, high = self.pixel_range
        values = low + np.arange(256) * (high - low) / 255
        mean, std = np.zeros(self.channels) + (self.mean or 0), np.zeros(self.channels) + (self.std or 1)
        return ((values - mean[:, np.newaxis]) / std[:, np.newaxis]).astype(np.float32)

    @cached_property
    def _labels(self) -> dict[str, int]:
        named = {name: label for label, name in enumerate(self.class_names)}
        if any(name.isdecimal() and int(name) != label for name, label in named.items()):
            return named
        return {number: label for label, number in enumerate(numbers(len(named)))} | named


_CONFIG_KEYS = ("class_names", "pixel_range", "mean", "std")


@dataclass(frozen=True)
class LoadedConfig:
    """A config and the file that it was read from."""

    config: ModelConfig
    where: str


def load_config(model: Path, named: Path | None = None) -> LoadedConfig | None:
    """The named config, or else <model>.toml beside the model. None if there is none.

    Raises SetupError: unreadable, an unknown key (with the nearest valid one), a wrong type.
    """
    path = named or model.with_suffix(".toml")
    if named is None and not path.is_file():
        return None
    return LoadedConfig(shapes.convert(shapes.read_toml(path), ModelConfig, str(path)), str(path))


def combine(signature: ModelSignature, loaded: LoadedConfig | None, model: Path, *, tensors: bool = False) -> ModelSpec:
    """The spec given by the model's file and its config. tensors: what it is given is no images, whatever its shape.

    Raises SetupError where they do not fit.
    """
    config, where = (loaded.config, loaded.where) if loaded else (ModelConfig(), str(model))
    tensors = config.input == "tensor" or not signature.channels or (tensors and config.input is None)
    if tensors:
        signature = _of_tensors(signature, config, where)
    size = signature.image_size or config.image_size
    if size is None:
        raise SetupError(
            f"{where}: the model takes images of any size; expected image_size = [height, width] in {model.stem}.toml"
        )
    if config.image_size not in (None, size):
        raise SetupError(f"{where}: image_size = {list(config.image_size or ())}, the model takes {list(size)}")
    if config.output and len(signature.outputs) > 1:
        raise SetupError(f"{where}: output = {config.output!r}, the model has {len(signature.outputs)}; leave it out")
    if config.output:
        only = structs.replace(signature.outputs[0], kind=config.output)
        signature = replace(signature, outputs=(only,))
    classes, outputs = signature.classes, signature.outputs
    if [output.kind for output in outputs] == ["classes"]:
        outputs = ()
    labels = next((output.size for output in outputs if output.kind == "labels"), 0)
    names = config.class_names or numbers(classes or labels)
    if len(names) != (classes or labels):
        gives = f"{classes} classes" if classes or not labels else f"{labels} labels"
        raise SetupError(
            f"{where}: class_names has {len(names)} names, the model gives {gives}; "
            "expected one for each, in the order of its outputs"
        )
    proposed = None if config.mean or config.std else signature.pixel_range
    pixel_range = config.pixel_range or proposed or (0.0, 1.0)
    try:
        takes = signature.input if tensors else None
        named = (names, ()) if classes or not labels else ((), names)
        return ModelSpec(
            size, signature.channels, named[0], pixel_range, config.mean, config.std, outputs, takes, named[1]
        )
    except ValueError as error:
        raise SetupError(f"{where}: {error}") from error


def _of_tensors(signature: ModelSignature, config: ModelConfig, where: str) -> ModelSignature:
    """The same, as a model that takes no images. Raises SetupError: a size is not known, keys that are of images."""
    if config.input == "images":
        raise SetupError(
            f"{where}: input = 'images', the model takes {signature}; expected [height, width, channels], channels 1 "
            "(grey) or 3 (RGB), or [height, width]"
        )
    if signature.input is None:
        raise SetupError(f"{where}: the model takes tensors of any size; expected fixed sizes but for the batch")
    for key in ("pixel_range", "mean", "std", "image_size"):
        if getattr(config, key):
            raise SetupError(f"{where}: {key} is for images, the model takes tensors as they are; leave it out")
    return replace(signature, image_size=(0, 0), channels=0, pixel_range=None)


def check_config_unchanged(converted: ModelSpec, model: Path) -> None:
    """Raise SetupError if the config beside a model changed since its variants were converted."""
    loaded = load_config(model)
    tensors = converted.input is not None
    if loaded and combine(converted.signature, loaded, model, tensors=tensors) != converted:
        raise SetupError(
            f"{loaded.where}: this config changed since the variants were converted; run harness convert again"
        )


def _check(spec: ModelSpec) -> None:
    """Raise ValueError where no model is such."""
    if spec.input and (not spec.input.shape or min(spec.input.shape) < 1):
        raise ValueError(f"input = {list(spec.input.shape)}: expected at least one number")
    if not spec.input and min(spec.image_size) < 1:
        raise ValueError(f"image_size = {list(spec.image_size)}: expected at least [1, 1]")
    if not spec.input and spec.channels not in COLOURS:
        raise ValueError(f"channels = {spec.channels}: expected 1 (grey) or 3 (RGB)")
    if len(spec.class_names) < 2 and not (spec.outputs and not spec.class_names):
        raise ValueError(f"{len(spec.class_names)} classes: expected at least 2")
    names = spec.class_names or spec.label_names
    if not all(name.strip() for name in names) or len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1 or not name.strip())
        raise ValueError(f"class_names has {repeated!r} twice, or empty; expected different names")
    low, high = spec.pixel_range
    if low == high:
        raise ValueError(f"pixel_range = {[low, high]}: expected what 0 and 255 become, such as [-1, 1]")
    for key, values in (("mean", spec.mean), ("std", spec.std)):
        if values and len(values) != spec.channels:
            raise ValueError(f"{key} has {len(values)} numbers: expected one a channel, {spec.channels}")
    if min(spec.std, default=1.0) <= 0:
        raise ValueError(f"std = {list(spec.std)}: expected numbers above 0")


def only_classes(classes: int) -> Output:
    """The output of a classifier that has no other."""
    return Output("output_0", "classes", (classes,))


def listed(class_names: tuple[str, ...]) -> str:
    """Classes in words, at most NAMES_SHOWN of them."""
    if class_names == numbers(len(class_names)):
        return f"0-{len(class_names) - 1}"
    return ", ".join(class_names[:NAMES_SHOWN]) + (", ..." if len(class_names) > NAMES_SHOWN else "")


def numbers(count: int) -> tuple[str, ...]:
    """The names of classes that have none."""
    return tuple(map(str, range(count)))
