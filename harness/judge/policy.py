"""The policy: how far a variant may be from the reference. Defaults and their meaning: policy.toml beside this file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, field

from harness.core import shapes
from harness.core.cell import ACCELERATORS, Cell
from harness.core.shapes import Shape
from harness.run.latency_plan import Mode

DEFAULTS = Path(__file__).with_name("policy.toml")
ANY = "*"

Alpha = Annotated[float, Meta(ge=0.0005, le=0.25)]
# No number of images can show that a share is 0 or 1.
Max = Annotated[float, Meta(gt=0, le=1, description="more than 0, such as 0.005, up to 1, which is no limit")]
Min = Annotated[float, Meta(ge=0, lt=1, description="less than 1, such as 0.99, down to 0, which is no limit")]
Positive = Annotated[float, Meta(gt=0)]
MEASURED = ("max_median_s", "max_p90_s", "max_ratio", "max_load_s", "max_first_s", "max_memory_bytes", "max_joules")
EXACT = ("max_size_bytes", "max_instructions", "max_instructions_ratio")


class Limits(Shape, kw_only=True):
    """The limits of a cell; see policy.toml."""

    max_accuracy_drop: Max
    min_accuracy_ratio: Min
    max_flip_share: Max
    max_class_drop: Max
    min_recall: Min
    max_probability_difference: Max
    max_far_share: Max
    max_mean_probability_difference: Max
    max_log_loss_rise: Max
    max_tensor_error: Max
    min_cosine: Min
    max_off_share: Max
    max_mean_tensor_error: Max
    min_mean_cosine: Min
    max_slice_drop: Max = 0.05
    max_slice_flip_share: Max = 0.05
    max_slice_off_share: Max = 0.05
    require_full_acceleration: bool


class LatencyRule(Shape):
    """Limits of the cells and devices whose names fit the patterns, in one mode. None: no limit. See policy.toml."""

    device: str = ANY
    variant: str = ANY
    accelerator: str = ANY
    max_p90_s: Positive | None = None
    max_ratio: Positive | None = None
    mode: Mode = "steady"
    max_median_s: Positive | None = None
    max_load_s: Positive | None = None
    max_first_s: Positive | None = None
    max_memory_bytes: Positive | None = None
    max_joules: Positive | None = None
    max_size_bytes: Positive | None = None
    max_instructions: Positive | None = None
    max_instructions_ratio: Positive | None = None

    def __post_init__(self) -> None:
        if not any(getattr(self, limit) for limit in (*MEASURED, *EXACT)):
            raise ValueError(f"limits nothing: expected one or more of {', '.join((*MEASURED, *EXACT))}")
        if self.mode != "steady" and self.max_ratio:
            raise ValueError(f"max_ratio compares steady latency with a baseline's; the rule's mode is {self.mode!r}")
        if self.max_joules and self.mode != "energy":
            raise ValueError("max_joules limits energy: expected mode = 'energy' in the rule")

    @property
    def measured(self) -> bool:
        """Whether it limits what noise can move: neither the file's size nor its instructions."""
        return any(getattr(self, limit) for limit in MEASURED)

    @property
    def of_starts(self) -> bool:
        """Whether it limits what the steady mode measures only of the variant that a process loads first."""
        return self.mode == "steady" and bool(self.max_load_s or self.max_first_s or self.max_memory_bytes)

    def fits(self, cell: Cell) -> bool:
        return fnmatchcase(cell.variant, self.variant) and fnmatchcase(cell.accelerator, self.accelerator)


class Policy(Shape):
    """alpha: of each end of an interval. tables: limits by cell, where * is any variant. latency: every rule that fits
    applies."""

    alpha: Alpha
    tables: Mapping[str, Limits]
    latency: tuple[LatencyRule, ...] = ()

    def __post_init__(self) -> None:
        if ANY not in self.tables:
            raise ValueError(f"expected limits for {ANY!r}, any variant")

    def limits(self, cell: Cell) -> Limits:
        """Those of the most specific table for a cell."""
        names = (str(cell), str(Cell(ANY, cell.accelerator)), cell.variant, ANY)
        return next(self.tables[name] for name in names if name in self.tables)


Keys = Mapping[str, Any]  # some of Limits


class _File(Shape):
    """A policy file. An accelerator's table holds keys of Limits, and such tables by variant under `variant`."""

    alpha: Alpha | None = None
    limits: Keys = field(default_factory=dict)
    variant: Mapping[str, Keys] = field(default_factory=dict)
    accelerator: Mapping[str, Keys] = field(default_factory=dict)
    latency: tuple[LatencyRule, ...] = ()

    def by_cell(self, where: str) -> dict[str, Keys]:
        """Its tables by cell; * is any variant, on any accelerator if none is named."""
        tables = {ANY: self.limits, **self.variant}
        for accelerator, keys in self.accelerator.items():
            shapes.check_name(accelerator, ACCELERATORS[1:], where, "accelerator")
            of_variants = shapes.convert(keys.get("variant", {}), dict[str, Keys], f"{where}: {accelerator}.variant")
            if of_all := {key: value for key, value in keys.items() if key != "variant"}:
                tables[f"{ANY}@{accelerator}"] = of_all
            tables |= {f"{variant}@{accelerator}": table for variant, table in of_variants.items()}
        return tables


def load(path: Path | None = None) -> Policy:
    """The defaults, changed by a file's tables. Raises SetupError: unknown keys, impossible values."""
    default = shapes.convert(shapes.read_toml(DEFAULTS), _File, str(DEFAULTS))
    file, where = default, str(path or DEFAULTS)
    if path:
        file = shapes.convert(shapes.read_toml(path), _File, where)
    layers: dict[str, dict[str, Any]] = {}
    for tables in (default.by_cell(where), file.by_cell(where)):
        for name, keys in tables.items():
            layers[name] = {**layers.get(name, {}), **keys}
    variants = [name for name in layers if "@" not in name]
    for name in [name for name in layers if name.startswith(f"{ANY}@")]:
        layers |= {combined: layers.get(combined, {}) for variant in variants if (combined := variant + name[1:])}
    limits = {name: _limits(name, layers, where) for name in layers}
    return Policy(file.alpha or default.alpha or 0, limits, file.latency)


def _limits(name: str, layers: Mapping[str, Keys], where: str) -> Limits:
    """The keys of all tables that hold for a cell; the more specific one counts."""
    cell = Cell.parse(name)
    names = dict.fromkeys((ANY, cell.variant, str(Cell(ANY, cell.accelerator)), name))
    keys = {key: value for layer in names for key, value in layers.get(layer, {}).items()}
    return shapes.convert(keys, Limits, f"{where}: {'limits' if name == ANY else name}")


def check_variants(policy: Policy, known: Iterable[str], where: str) -> None:
    """Raise SetupError if limits are for a variant that there is not: a misspelt one would be judged by others."""
    known = list(known)
    names = [Cell.parse(name).variant for name in policy.tables] + [rule.variant for rule in policy.latency]
    for name in names:
        if not any(fnmatchcase(variant, name) for variant in known):
            shapes.check_name(name, known, where, "variant")
