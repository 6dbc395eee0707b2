"""Training settings: one typed TOML file. Every key is optional; unknown or mistyped keys are rejected."""

from __future__ import annotations

import argparse
import typing
from pathlib import Path
from typing import Any, Literal

from msgspec import structs

from harness.core import shapes
from harness.core.errors import SetupError
from harness.core.shapes import Shape
from harness.images import spec
from harness.images.spec import ModelSpec

Range = tuple[float, float]
DIGITS = ModelSpec(image_size=(28, 28), channels=1, class_names=(*"0123456789", "noise"))
SHIPPED = Path(__file__).parent / "resnet164.keras"


class Augmentation(Shape):
    """Random changes to each image, anew in every epoch. Ranges are sampled uniformly; shares are probabilities.

    Stroke, ink, paper and border lines apply to grey images only.
    """

    enabled: bool = True
    rotation_degrees: Range = (-7.0, 7.0)
    shift_pixels: Range = (-2.0, 2.0)
    shear: Range = (-0.1, 0.1)
    zoom: Range = (0.9, 1.1)
    elastic: Range = (0.0, 0.0)  # standard deviation, in pixels, of a smooth distortion
    stroke_width: Range = (-0.3, 0.5)  # pixels that dark strokes grow or shrink by, at most 1
    ink_strength: Range = (0.7, 1.2)  # factor on the darkness of the ink
    paper_level: Range = (0.8, 1.1)  # factor on the brightness of the paper; the ink's darkness stays
    border_lines: float = 0.05  # share of images that get a line along an edge, as on a form
    blur: Range = (0.0, 0.6)  # standard deviation in pixels
    brightness: Range = (0.9, 1.1)  # factor on all pixels
    contrast: Range = (0.8, 1.2)  # factor on the distance from the paper's level


class TrainConfig(Shape):
    """Everything that determines a training run."""

    data: Path = Path("data/raw")  # <class>/<any image>
    skip_bad: bool = False  # leave out files that cannot be used, instead of stopping
    out: Path = Path("runs/resnet164.keras")
    init: Path | None = None  # weights to start from (.keras); None: from scratch
    save: Literal["last", "best", "every"] = "last"  # best: by validation accuracy; every: a file for each epoch, too
    depth: int = 164
    model: ModelSpec = DIGITS  # its input and classes; written beside it, for harness convert
    validation_share: float = 0.1
    epochs: int = 18
    steps_per_epoch: int | None = None  # None: one pass over the data
    batch_size: int = 128
    learning_rate: float = 0.1  # at its peak
    warmup_share: float = 0.1  # share of all steps in which the rate rises linearly
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"  # after the warm-up
    plateau_factor: float = 0.1  # multiplies the rate when the validation loss stops falling
    plateau_patience: int = 3  # epochs without a fall
    momentum: float = 0.9
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0  # share of the wanted probability that is spread over all classes
    average: float | None = None  # momentum of the weights' moving average, which validates and ships; None: no average
    precision: Literal["auto", "mixed_bfloat16", "float32"] = "auto"  # auto: bfloat16 where the machine computes in it
    seed: int = 164
    hard_by: Path | None = None  # a .keras or .tflite model: images that it is unsure of are sampled more often
    hard_share: float = 0.4  # share of each batch for these images; falls linearly to 0 in the last quarter
    tensorboard: bool = True
    backend: Literal["tensorflow", "jax"] = "tensorflow"
    processes: int = 1  # that train together, each on its part of every batch (jax)
    process: int = 0  # which of them this one is
    coordinator: str | None = None  # host:port of process 0
    augmentation: Augmentation = Augmentation()


TABLES: dict[str, type[Shape]] = {"model": ModelSpec, "augmentation": Augmentation}


def load(path: Path | None, **overrides: Any) -> TrainConfig:
    """The settings of a file, or the defaults. Overrides that are not None win, in whichever table their key is.

    Raises SetupError if the file does not exist or is not TOML, or a key is unknown, of a wrong type or out of range.
    """
    table = shapes.read_toml(path) if path else {}
    overrides = {key: value for key, value in overrides.items() if value is not None}
    for name, kind in TABLES.items():
        part = {key: overrides.pop(key) for key in kind.__struct_fields__ if key in overrides}
        if part or name == "model":
            stored = table.setdefault(name, {})
            if isinstance(stored, dict):  # a model's keys are the digits' where they are left out
                table[name] = (structs.asdict(DIGITS) if name == "model" else {}) | stored | part
    config = shapes.convert(table | overrides, TrainConfig, str(path or "settings"))
    _check(config)
    return config


def add_flags(parser: argparse.ArgumentParser) -> None:
    """A flag for every setting, named like its key. A flag that is not given is None."""
    titled: dict[str, type[Shape]] = {"settings (over the file's)": TrainConfig, **TABLES}
    for title, kind in titled.items():
        hints = typing.get_type_hints(kind)
        group = parser.add_argument_group(title)
        for key in structs.fields(kind):
            hint, flag = hints[key.name], f"--{key.name.replace('_', '-')}"
            if hint is Augmentation:
                group.add_argument("--augmentation", action=argparse.BooleanOptionalAction, dest="enabled")
            elif hint is ModelSpec:
                continue
            elif typing.get_origin(hint) is tuple:
                _add_tuple(group, flag, hint)
            elif hint is bool:
                if key.name != "enabled":
                    group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None)
            elif typing.get_origin(hint) is Literal:
                group.add_argument(flag, choices=typing.get_args(hint))
            else:
                kinds = [k for k in (typing.get_args(hint) or (hint,)) if k is not type(None)]
                group.add_argument(flag, type=kinds[0], metavar=kinds[0].__name__.upper())


def _add_tuple(group: Any, flag: str, hint: Any) -> None:
    kind, second = typing.get_args(hint)
    if second is Ellipsis:
        group.add_argument(flag, type=kind, nargs="+", metavar=kind.__name__.upper())
    else:
        group.add_argument(flag, type=kind, nargs=2, metavar=("LOW", "HIGH") if kind is float else ("HEIGHT", "WIDTH"))


def from_flags(path: Path | None, options: dict[str, Any]) -> TrainConfig:
    """The settings of a file and the flags of `add_flags`."""
    return load(path, **{key: tuple(v) if isinstance(v, list) else v for key, v in options.items()})


def _check(config: TrainConfig) -> None:
    rules = {
        "epochs": config.epochs >= 1,
        "batch_size": config.batch_size >= 1,
        "steps_per_epoch": config.steps_per_epoch is None or config.steps_per_epoch >= 1,
        "depth": config.depth >= 11 and (config.depth - 2) % 9 == 0,
        "learning_rate": config.learning_rate > 0,
        "momentum": 0 <= config.momentum < 1,
        "weight_decay": config.weight_decay >= 0,
        "label_smoothing": 0 <= config.label_smoothing < 1,
        "average": config.average is None or 0 < config.average < 1,
        "validation_share": 0 <= config.validation_share < 1,
        "warmup_share": 0 <= config.warmup_share < 1,
        "plateau_factor": 0 < config.plateau_factor < 1,
        "plateau_patience": config.plateau_patience >= 1,
        "seed": 0 <= config.seed < 2**32 - 1,
        "hard_share": config.hard_by is None or 1 / config.batch_size <= config.hard_share <= 1,
        "processes": config.processes >= 1,
        "process": 0 <= config.process < config.processes,
    }
    for key, holds in rules.items():
        if not holds:
            raise SetupError(f"{key} = {getattr(config, key)!r} is out of range; see models/config.py")
    if min(config.model.image_size) < 8:
        raise SetupError(f"image_size = {list(config.model.image_size)}: expected at least 8 x 8 pixels to train on")
    for name, value in structs.asdict(config.augmentation).items():
        if isinstance(value, tuple) and value[0] > value[1]:
            raise SetupError(f"{name} = {list(value)}: expected [low, high]")
    if not 0 <= config.augmentation.border_lines <= 1:
        raise SetupError(f"border_lines = {config.augmentation.border_lines}: expected a share, 0 to 1")
    if config.out.suffix != ".keras":
        raise SetupError(f"out = {config.out}: expected a name ending in .keras")
    for kept in (SHIPPED, config.init):
        if kept is not None and config.out.resolve() == kept.resolve():
            raise SetupError(f"out = {config.out}: training never overwrites the model it starts from or ships with")
    try:
        spec.load_config(config.out)
    except SetupError as error:
        raise SetupError(f"out = {config.out}: the model's config would replace another file ({error})") from error
    if config.processes > 1:
        if config.hard_by is not None:
            raise SetupError(f"hard_by = {config.hard_by}: expected one process, not {config.processes}")
        if config.backend != "jax":
            raise SetupError(f"processes = {config.processes} on {config.backend}: expected backend = 'jax'")
        if config.coordinator is None:
            raise SetupError(f"processes = {config.processes}: expected coordinator = 'host:port' of process 0")
        if config.batch_size % config.processes:
            raise SetupError(f"batch_size = {config.batch_size}: expected a multiple of processes = {config.processes}")
    if config.validation_share == 0 and (config.save == "best" or config.schedule == "plateau"):
        raise SetupError("validation_share = 0: save = 'best' and schedule = 'plateau' need validation images")
