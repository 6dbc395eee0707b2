"""Training's settings: one typed file (TOML), every key optional, unknown or mistyped keys refused."""

from __future__ import annotations

import difflib
import tomllib
import typing
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import SetupError

Range = tuple[float, float]


@dataclass(frozen=True)
class Augmentation:
    """What is changed at random, each time an image is seen. Ranges are drawn from evenly."""

    enabled: bool = True
    rotation_degrees: Range = (-7.0, 7.0)
    shift_pixels: Range = (-2.0, 2.0)
    shear: Range = (-0.1, 0.1)
    zoom: Range = (0.9, 1.1)
    brightness: Range = (0.85, 1.15)  # factor on all pixels
    contrast: Range = (0.7, 1.25)  # factor on the distance from the paper


@dataclass(frozen=True)
class TrainConfig:
    """Everything a training run is determined by."""

    data: Path = Path("data/raw")  # <class>/<any image>
    out: Path = Path("runs/resnet164.keras")
    init: Path | None = None  # weights to start from (.keras); none: from scratch
    depth: int = 164
    classes: int = 11
    image_size: int = 28
    validation_share: float = 0.02
    epochs: int = 18
    steps_per_epoch: int | None = 200  # none: one pass over the data
    batch_size: int = 128
    learning_rate: float = 0.15  # at its peak
    warmup_share: float = 0.1  # of all steps; then a cosine down to zero
    momentum: float = 0.9
    weight_decay: float = 1e-4
    precision: str = "mixed_bfloat16"  # or float32
    seed: int = 164
    augmentation: Augmentation = field(default_factory=Augmentation)


def load(path: Path | None, **overrides: Any) -> TrainConfig:
    """The settings of a file, or the defaults; overrides that are not None win.

    Raises SetupError: no such file, not TOML, an unknown key (with the nearest valid one), a wrong type.
    """
    table: dict[str, Any] = {}
    if path is not None:
        try:
            table = tomllib.loads(path.read_text())
        except OSError as error:
            raise SetupError(f"{path}: expected a config file; {error.strerror}") from error
        except ValueError as error:
            raise SetupError(f"{path}: not valid TOML ({error})") from error
    config = _build(TrainConfig, table, str(path))
    config = replace(config, **{key: value for key, value in overrides.items() if value is not None})
    _check(config)
    return config


def _build(kind: type[Any], table: dict[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(kind)
    known = {f.name for f in fields(kind)}
    values = {}
    for key, value in table.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(known))}"
            raise SetupError(f"{where}: unknown key {key!r}{hint}")
        values[key] = _convert(value, hints[key], f"{where}: {key}")
    return kind(**values)


def _convert(value: Any, hint: Any, where: str) -> Any:
    if is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, dict):
            return _build(hint, value, where)
    elif typing.get_origin(hint) is tuple:
        if isinstance(value, list) and len(value) == 2 and all(type(v) in (int, float) for v in value):
            return float(value[0]), float(value[1])
    elif Path in (hint, *typing.get_args(hint)):
        if isinstance(value, str):
            return Path(value)
    elif hint is float:
        if type(value) in (int, float):
            return float(value)
    elif type(value) in (hint, *typing.get_args(hint)):
        return value
    raise SetupError(f"{where} = {value!r}: expected {getattr(hint, '__name__', hint)}")


def _check(config: TrainConfig) -> None:
    rules = {
        "epochs": config.epochs >= 1,
        "batch_size": config.batch_size >= 1,
        "steps_per_epoch": config.steps_per_epoch is None or config.steps_per_epoch >= 1,
        "classes": config.classes >= 2,
        "image_size": config.image_size >= 8,
        "depth": config.depth >= 11 and (config.depth - 2) % 9 == 0,
        "learning_rate": config.learning_rate > 0,
        "validation_share": 0 < config.validation_share < 1,
        "warmup_share": 0 <= config.warmup_share < 1,
        "precision": config.precision in ("float32", "mixed_bfloat16"),
    }
    for key, holds in rules.items():
        if not holds:
            raise SetupError(f"{key} = {getattr(config, key)!r} is out of range; see models/config.py")
