"""What is checked: variants of a Keras model on accelerators, and the limits that they are judged by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.artifacts import manifest, reference
from harness.artifacts.manifest import Variant
from harness.core.cell import Accelerator, Cell
from harness.core.errors import SetupError
from harness.images import spec
from harness.images.spec import ModelSpec
from harness.judge import policy
from harness.judge.policy import Policy
from harness.records.baseline import Baseline
from harness.run.latency_plan import LatencyPlan


@dataclass(frozen=True)
class Subject:
    """contents: of the variants' files. model: the Keras model, as it was named. plan: None if latency is not measured.
    count: whether instructions are counted.

    Raises SetupError: limits of an unknown variant.
    """

    variants: Mapping[str, Variant]
    contents: Mapping[str, bytes]
    model: str
    model_sha256: str
    limits: Policy
    plan: LatencyPlan | None = None
    baseline: Baseline | None = None
    accelerators: tuple[Accelerator, ...] = ("cpu",)
    count: bool = False

    def __post_init__(self) -> None:
        policy.check_variants(self.limits, (*manifest.KNOWN_KINDS, *self.variants), "policy")

    @property
    def cells(self) -> tuple[Cell, ...]:
        return tuple(Cell(kind, accelerator) for kind in self.variants for accelerator in self.accelerators)

    @property
    def spec(self) -> ModelSpec:
        """What all the variants take and give."""
        return next(iter(self.variants.values())).spec


def load(
    models: Path,
    model: Path,
    limits: Policy,
    kinds: tuple[str, ...] | None = None,
    plan: LatencyPlan | None = None,
    baseline: Baseline | None = None,
) -> Subject:
    """A folder's variants, or those named. Raises SetupError: no such variants, stale or damaged ones, made for other
    class names or pixels; limits of an unknown variant."""
    variants = select(manifest.read(models), kinds, models)
    model_sha256 = reference.model_sha256(model)
    contents = {kind: manifest.verify(models, variant, model_sha256) for kind, variant in variants.items()}
    spec.check_config_unchanged(manifest.spec_of(variants, models), model)
    return Subject(variants, contents, str(model), model_sha256, limits, plan, baseline)


def select(known: Mapping[str, Variant], kinds: tuple[str, ...] | None, models: Path) -> dict[str, Variant]:
    """Those named, or all, in the order of KNOWN_KINDS. Raises SetupError."""
    for kind in kinds or ():
        if kind not in known:
            raise SetupError(f"{models}: has no variant {kind!r}; it has {', '.join(known) or 'none'}")
    chosen = {kind: known[kind] for kind in manifest.KNOWN_KINDS if kind in known and (not kinds or kind in kinds)}
    if not chosen:
        raise SetupError(f"{models}: its manifest names no variants; convert again")
    return chosen
