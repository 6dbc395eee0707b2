"""Slices of the images, such as those of one phone, each judged on its own: any of them can fail a variant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt

from harness.artifacts.outputs import FloatArray
from harness.core.outcome import SEVERITY, Interval, Outcome, Verdict, within
from harness.judge import intervals, paired_tests, rules, tally, tensors
from harness.judge.parity import Changes, PartParity, worst_first
from harness.judge.policy import Limits
from harness.judge.rules import MAX_NAMED, NO_SCIPY, Check, Judgement, advice, percent, points
from harness.judge.tally import CHANGES, Mergeable, by_key
from harness.judge.tensors import TensorTally

COUNTED = ("flips", "flips_best", "flips_worst", "right", "reference_right", *CHANGES)


@dataclass(frozen=True)
class SliceTally(Mergeable):
    """A slice's images counted. counts: of its answers, by COUNTED, empty if the model gives no classes. tensors: by
    name of an output."""

    images: int
    counts: Annotated[Mapping[str, int], by_key]
    tensors: Annotated[Mapping[str, TensorTally], by_key]


def by_slice(left: Mapping[str, SliceTally], right: Mapping[str, SliceTally]) -> dict[str, SliceTally]:
    """Slices of two shards added up; either may lack some."""
    return {**left, **right, **{name: left[name] + right[name] for name in left.keys() & right.keys()}}


def count(
    slices: npt.NDArray[np.str_],
    truths: npt.NDArray[np.int64],
    outputs: FloatArray,
    reference: FloatArray,
    others: Mapping[str, tuple[FloatArray, FloatArray]],
    changed: npt.NDArray[np.bool_] | None = None,
) -> dict[str, SliceTally]:
    """Tally each slice of images [N]: outputs [N, classes] beside the reference's, and by name the numbers of outputs
    that are no classes, beside the reference's. changed: images on which a label flips. Raises ValueError if they do
    not pair."""
    if not len(slices) == len(outputs) == len(reference):
        raise ValueError(f"{len(slices)} images in slices, {len(outputs)} outputs, {len(reference)} of the reference")
    names, places = np.unique(slices, return_inverse=True)
    counts: dict[str, list[int]] = {}
    if reference.shape[1]:
        cases = tally.cases(outputs, reference, truths)
        cases["flips"] = outputs.argmax(axis=1) != reference.argmax(axis=1)
        counts = {case: np.bincount(places[cases[case]], minlength=len(names)).tolist() for case in COUNTED}
    if changed is not None:
        flips = np.bincount(places[changed], minlength=len(names)).tolist()
        none = [0] * len(names)
        counts = {case: flips if case.startswith("flips") else none for case in COUNTED}
    return {
        str(name): SliceTally(
            images=int((places == place).sum()),
            counts={case: of_slices[place] for case, of_slices in counts.items()},
            tensors={
                output: tensors.count(numbers[places == place], expected[places == place])
                for output, (numbers, expected) in others.items()
            },
        )
        for place, name in enumerate(names)
    }


@dataclass(frozen=True)
class Slice:
    """A slice whose figures can be judged."""

    name: str
    tally: SliceTally
    labelled: bool
    off: int | None

    @property
    def changes(self) -> Changes:
        return Changes(*(self.tally.counts[name] for name in CHANGES))

    def scaled(self, factor: float) -> Slice:
        """Were there more images by a factor, and all counts with them."""
        counts = {name: round(factor * count) for name, count in self.tally.counts.items()}
        more = SliceTally(round(factor * self.tally.images), counts, {})
        return Slice(self.name, more, self.labelled, None if self.off is None else round(factor * self.off))


def judge(
    counted: Mapping[str, SliceTally], labelled: bool, spreads: Mapping[str, float], limits: Limits, alpha: float
) -> tuple[Judgement, tuple[PartParity, ...]]:
    """The verdict on all slices, and each of them, the worst first. For failing, alpha is shared out over the slices;
    to pass, all must hold. spreads: of all images, by name of an output."""
    slices = [_slice(name, part, labelled, spreads, limits) for name, part in counted.items()]
    try:
        judged = [(part, _outcomes(part, limits, alpha, len(slices))) for part in slices]
        parities = [_parity(part, outcomes, alpha, len(slices)) for part, outcomes in judged]
    except ModuleNotFoundError:
        return Judgement(Verdict(Outcome.INCONCLUSIVE, (NO_SCIPY,)), None), ()
    parities.sort(key=worst_first)
    by_name = {part.name: outcomes for part, outcomes in judged}
    checks = tuple(_check(rule, getattr(limits, rule), parities, by_name) for rule in judged[0][1])
    outcome = max((check.outcome for check in checks), key=SEVERITY.index, default=Outcome.PASS)
    reasons = [reason for check in checks if check.outcome is outcome for reason in check.reasons]
    if outcome is Outcome.INCONCLUSIVE:
        open_ones = sorted((p for p, outcomes in judged if outcome in outcomes.values()), key=lambda p: p.tally.images)
        images = sum(part.images for part in parities)
        needed = [_images_needed(part, images, limits, alpha, len(slices)) for part in open_ones[:MAX_NAMED]]
        reasons.append(advice(needed, images))
    return Judgement(Verdict(outcome, tuple(reasons)), None, checks), tuple(parities)


def _slice(name: str, counted: SliceTally, labelled: bool, spreads: Mapping[str, float], limits: Limits) -> Slice:
    off = [tensors.figures(output, part, limits, spreads[output]).off for output, part in counted.tensors.items()]
    return Slice(name, counted, labelled, max(off, default=None))


def _intervals(part: Slice, alpha: float, slices: int) -> Iterator[tuple[str, Interval]]:
    """What is limited of a slice, by rule. slices: over how many alpha is shared out for failing."""
    images, counts, shared = part.tally.images, part.tally.counts, alpha / slices
    if counts and part.labelled:
        yield "max_slice_drop", intervals.drop(part.changes, images, alpha, shared)
    if counts:
        flips = intervals.share(counts["flips_best"], counts["flips_worst"], images, alpha, shared)
        yield "max_slice_flip_share", flips
    if part.off is not None:
        yield "max_slice_off_share", intervals.share(part.off, part.off, images, alpha, shared)


def _outcomes(part: Slice, limits: Limits, alpha: float, slices: int) -> dict[str, Outcome]:
    """Of each rule that limits anything."""
    outcomes = {}
    for rule, interval in _intervals(part, alpha, slices):
        if (limit := getattr(limits, rule)) < 1:
            outcomes[rule] = within(interval, limit)
    return outcomes


def _parity(part: Slice, outcomes: Mapping[str, Outcome], alpha: float, slices: int) -> PartParity:
    shown, images, counts = dict(_intervals(part, alpha, slices)), part.tally.images, part.tally.counts
    labelled = bool(counts) and part.labelled
    return PartParity(
        name=part.name,
        images=images,
        outcome=max(outcomes.values(), key=SEVERITY.index, default=Outcome.PASS),
        accuracy=counts["right"] / images if labelled else None,
        reference_accuracy=counts["reference_right"] / images if labelled else None,
        drop=(counts["regressions"] - counts["improvements"]) / images if labelled else None,
        drop_interval=shown.get("max_slice_drop"),
        flips=counts.get("flips"),
        flip_share=shown.get("max_slice_flip_share"),
        off=part.off,
        off_share=shown.get("max_slice_off_share"),
    )


def _text(rule: str, part: PartParity) -> str:
    if rule == "max_slice_drop":
        drop = f"{points(part.drop or 0)} points below the reference's {percent(part.reference_accuracy or 0)}"
        return f"{part.name}: accuracy {percent(part.accuracy or 0)} of {part.images} images, {drop}"
    changed = f"{part.flips} answers differ" if rule == "max_slice_flip_share" else f"{part.off} are off"
    return f"{part.name}: of {part.images} images {changed}"


def _check(rule: str, limit: float, parities: list[PartParity], outcomes: Mapping[str, Mapping[str, Outcome]]) -> Check:
    """parities: the worst first."""
    texts = ((outcomes[parity.name][rule], _text(rule, parity)) for parity in parities)
    parts = [(outcome, f"slice {text}, {percent(limit)} allowed", text) for outcome, text in texts]
    return rules.check_parts(rule, "slices", parts)


def _images_needed(part: Slice, images: int, limits: Limits, alpha: float, slices: int) -> int | None:
    """About how many images in all would decide a slice. None if no number would."""

    def decided(factor: float) -> bool:
        return Outcome.INCONCLUSIVE not in _outcomes(part.scaled(factor), limits, alpha, slices).values()

    return paired_tests.images_to_decide(images, decided)
