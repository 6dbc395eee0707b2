"""The policy: how far a variant may be from the reference. Defaults and their meaning: policy.toml beside this file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from harness.core import settings
from harness.core.cell import Cell
from harness.core.errors import SetupError

DEFAULTS = Path(__file__).with_name("policy.toml")


@dataclass(frozen=True)
class Limits:
    """One kind's limits, shares of 1; see policy.toml."""

    largest_drop: float
    least_ratio: float
    largest_flip_share: float
    largest_class_drop: float
    least_recall: float
    largest_probability_difference: float
    largest_mean_probability_difference: float
    largest_ece_rise: float


@dataclass(frozen=True)
class LatencyRule:
    """Limits of the devices and kinds whose names fit the patterns; 0: none. See policy.toml."""

    device: str = "*"
    kind: str = "*"
    p90_s: float = 0.0
    largest_ratio: float = 0.0


@dataclass(frozen=True)
class Policy:
    """alpha: of each end of an interval. quantized: of every kind that has no limits of its own. latency: all apply."""

    alpha: float
    quantized: Limits
    kinds: Mapping[str, Limits] = field(default_factory=dict)
    latency: tuple[LatencyRule, ...] = ()

    def limits(self, cell: Cell) -> Limits:
        """Those of the cell, or else of its variant, or else of every quantized one."""
        return self.kinds.get(str(cell), self.kinds.get(cell.variant, self.quantized))


def load(path: Path | None = None) -> Policy:
    """The defaults, changed by a file's tables. Raises SetupError: unknown keys, impossible values."""
    default = settings.read(DEFAULTS)
    if path is None:
        return _policy(default, str(DEFAULTS))
    own = settings.read(path)
    for key, value in own.items():
        settings.check_name(key, (*default, "latency"), str(path), "key")
        if key == "latency" and isinstance(value, list) and all(isinstance(table, dict) for table in value):
            continue
        tables = [value] if key == "quantized" else value.values() if key == "kinds" and isinstance(value, dict) else []
        if key != "alpha" and not (isinstance(value, dict) and all(isinstance(table, dict) for table in tables)):
            expected = "tables, [[latency]]" if key == "latency" else "a table"
            raise SetupError(f"{path}: {key} = {value!r}: expected {expected}")
    kinds = {
        kind: {**default["kinds"].get(kind, {}), **own.get("kinds", {}).get(kind, {})}
        for kind in (*default["kinds"], *own.get("kinds", {}))
    }
    quantized = {**default["quantized"], **own.get("quantized", {})}
    alpha = own.get("alpha", default["alpha"])
    whole = {"alpha": alpha, "quantized": quantized, "kinds": kinds, "latency": own.get("latency", [])}
    return _policy(whole, str(path))


def check_kinds(policy: Policy, known: Iterable[str], where: str) -> None:
    """Raise SetupError where a kind has limits that no variant bears: a misspelt one would be judged by others."""
    known = list(known)
    for kind in policy.kinds:
        settings.check_name(kind, known, where, "kind")
    for rule in policy.latency:
        if not any(fnmatchcase(kind, rule.kind) for kind in known):
            settings.check_name(rule.kind, known, where, "kind")


def _policy(table: Mapping[str, Any], where: str) -> Policy:
    alpha = settings.build(_Alpha, {"alpha": table["alpha"]}, where).alpha
    if not 0.0005 <= alpha <= 0.25:
        raise SetupError(f"{where}: alpha = {alpha}: expected 0.0005 to 0.25")
    quantized = table["quantized"]
    kinds = {kind: _limits({**quantized, **own}, f"{where}: kinds.{kind}") for kind, own in table["kinds"].items()}
    rules = tuple(_rule(dict(own), f"{where}: latency") for own in table.get("latency", ()))
    return Policy(alpha, _limits(quantized, f"{where}: quantized"), kinds, rules)


def _rule(table: dict[str, Any], where: str) -> LatencyRule:
    rule = settings.build(LatencyRule, table, where)
    for key in ("p90_s", "largest_ratio"):
        if (value := getattr(rule, key)) < 0:
            raise SetupError(f"{where}: {key} = {value}: expected more than 0, or 0 for none")
    if not rule.p90_s and not rule.largest_ratio:
        raise SetupError(f"{where}: limits nothing: expected p90_s, in seconds, or largest_ratio, such as 1.05")
    return rule


@dataclass(frozen=True)
class _Alpha:
    alpha: float


def _limits(table: Mapping[str, Any], where: str) -> Limits:
    limits = settings.build(Limits, dict(table), where)
    for key, value in asdict(limits).items():
        if not 0 <= value <= 1:
            raise SetupError(f"{where}: {key} = {value}: expected a share, 0 to 1")
    if limits.largest_drop == 0:
        raise SetupError(f"{where}: largest_drop = 0: no number of images can show that; expected more, such as 0.005")
    return limits
