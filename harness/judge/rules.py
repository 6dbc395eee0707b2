"""PASS, FAIL or INCONCLUSIVE, each with its reasons, by a policy's limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from harness.core.cell import Cell
from harness.core.outcome import SEVERITY, Interval, Outcome, Verdict, within
from harness.judge import paired_tests
from harness.judge.parity import Changes, ClassParity, Parity
from harness.judge.policy import Limits, Policy

NO_SCIPY = (
    "not judged: SciPy is missing; pip install scipy (on a 32-bit Raspberry Pi: apt install python3-scipy), "
    "or copy the record and its .npz to another machine: harness verdict RECORD.json"
)


@dataclass(frozen=True)
class Statistics:
    """What a variant's figures prove. Intervals of `confidence`, their ends with ties at best and at worst.

    smallest_certifiable_drop: what these images could certify had no answer changed.
    """

    confidence: float
    accuracy: Interval
    reference_accuracy: Interval
    drop: float
    drop_interval: Interval
    largest_drop_allowed: float
    smallest_certifiable_drop: float
    flip_share: Interval
    mcnemar_p: float


@dataclass(frozen=True)
class Check:
    """One group of rules: the worst of its findings, and what they say; nothing said, nothing found."""

    name: str
    outcome: Outcome
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Judgement:
    """A verdict, and the statistics that it rests on; none where they could not be had."""

    verdict: Verdict
    statistics: Statistics | None
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True)
class _Finding:
    """One rule's outcome; images: how many would decide it, where these do not and some would."""

    outcome: Outcome
    text: str
    images: int | None = None


def judge(cell: Cell, parity: Parity, policy: Policy) -> Judgement:
    """A variant's verdict: the worst finding of the rules, and the findings of that severity as reasons."""
    limits = policy.limits(cell)
    try:
        found = _statistics(parity, limits, policy.alpha)
        groups = {
            "accuracy": [_drop(parity, found, policy.alpha)],
            "flips": [_flips(parity, found, limits, policy.alpha)],
            "classes": list(_classes(parity, limits, policy.alpha)),
            "probabilities": list(_measured(parity, limits)),
        }
    except ModuleNotFoundError:
        return Judgement(Verdict(Outcome.INCONCLUSIVE, (NO_SCIPY,)), None)
    checks = tuple(_check(name, group) for name, group in groups.items())
    findings = [finding for group in groups.values() for finding in group]
    outcome = _worst(findings)
    reasons = [finding.text for finding in findings if finding.outcome is outcome]
    if outcome is Outcome.INCONCLUSIVE:
        reasons.append(_advice(findings, parity.images))
    return Judgement(Verdict(outcome, tuple(reasons)), found, checks)


def _worst(findings: list[_Finding]) -> Outcome:
    return max((finding.outcome for finding in findings), key=SEVERITY.index, default=Outcome.PASS)


def _check(name: str, findings: list[_Finding]) -> Check:
    return Check(name, _worst(findings), tuple(finding.text for finding in findings))


def drop_interval(changes: Changes, images: int, alpha: float) -> Interval:
    """The drop's interval: the low end with ties for the variant, the high end with ties against it."""
    return Interval(
        paired_tests.smallest_drop(changes.broken_best, changes.fixed_best, images, alpha),
        paired_tests.largest_drop(changes.broken_worst, changes.fixed_worst, images, alpha),
    )


def _statistics(parity: Parity, limits: Limits, alpha: float) -> Statistics:
    images, changes = parity.images, parity.changes
    return Statistics(
        confidence=1 - 2 * alpha,
        accuracy=paired_tests.wilson(round(parity.accuracy * images), images, alpha),
        reference_accuracy=paired_tests.wilson(round(parity.reference_accuracy * images), images, alpha),
        drop=(changes.broken - changes.fixed) / images,
        drop_interval=drop_interval(changes, images, alpha),
        largest_drop_allowed=min(limits.largest_drop, (1 - limits.least_ratio) * parity.reference_accuracy),
        smallest_certifiable_drop=paired_tests.largest_drop(0, 0, images, alpha),
        flip_share=_flip_share(parity, 1, alpha),
        mcnemar_p=paired_tests.mcnemar(changes.broken, changes.fixed),
    )


def _finding(text: str, images: int, rule: Callable[[float], Outcome]) -> _Finding:
    """rule: the outcome were there more images by a factor, and all counts with them."""
    outcome = rule(1)
    needed = None
    if outcome is Outcome.INCONCLUSIVE:
        needed = paired_tests.images_to_decide(images, lambda factor: rule(factor) is not Outcome.INCONCLUSIVE)
    return _Finding(outcome, text, needed)


def _drop(parity: Parity, found: Statistics, alpha: float) -> _Finding:
    limit = found.largest_drop_allowed

    def rule(factor: float) -> Outcome:
        return within(drop_interval(_scaled(parity.changes, factor), round(parity.images * factor), alpha), limit)

    low, high = found.drop_interval.low, found.drop_interval.high
    text = f"accuracy drop {points(found.drop)} points, {found.confidence:.0%} interval {points(low)} to {points(high)}"
    return _finding(f"{text}, {points(limit)} allowed", parity.images, rule)


def _flips(parity: Parity, found: Statistics, limits: Limits, alpha: float) -> _Finding:
    limit = limits.largest_flip_share
    text = f"{parity.flips} of {parity.images} answers differ from the reference"
    if limit == 0:
        return _Finding(Outcome.FAIL if parity.flips else Outcome.PASS, f"{text}, none may")
    low, high = found.flip_share.low, found.flip_share.high
    text += f", {found.confidence:.0%} interval {low:.2%} to {high:.2%}, {limit:.2%} allowed"
    return _finding(text, parity.images, lambda factor: within(_flip_share(parity, factor, alpha), limit))


def _flip_share(parity: Parity, factor: float, alpha: float) -> Interval:
    images = round(parity.images * factor)
    best, worst = (min(images, round(flips * factor)) for flips in (parity.flips_best, parity.flips_worst))
    return Interval(
        paired_tests.clopper_pearson(best, images, alpha).low, paired_tests.clopper_pearson(worst, images, alpha).high
    )


def _classes(parity: Parity, limits: Limits, alpha: float) -> Iterator[_Finding]:
    """What speaks against a PASS, class by class."""
    if limits.largest_class_drop == 1 and limits.least_recall == 0:
        return
    strict = alpha / len(parity.classes)  # any class can fail a variant; all must hold to pass it
    for part in parity.classes:
        if part.recall is None:
            yield _Finding(Outcome.INCONCLUSIVE, f"class {part.name}: no images")
            continue
        text = f"class {part.name}: recall {part.recall:.2%} of {part.images} images"
        if part.reference_answers and not part.answers:
            text += " and never answered"
        for what, rule in (
            (
                f", the reference's {part.reference_recall:.2%}, {points(limits.largest_class_drop)} points allowed",
                partial(_class_drop, part, limits.largest_class_drop, alpha, strict),
            ),
            (f", at least {limits.least_recall:.2%} asked", partial(_class_recall, part, limits.least_recall, alpha)),
        ):
            finding = _finding(text + what, parity.images, rule)
            if finding.outcome is not Outcome.PASS:
                yield finding


def _class_drop(part: ClassParity, limit: float, alpha: float, strict: float, factor: float) -> Outcome:
    changes, images = _scaled(part.changes, factor), round(part.images * factor)
    return within(
        Interval(
            paired_tests.smallest_drop(changes.broken_best, changes.fixed_best, images, strict),
            paired_tests.largest_drop(changes.broken_worst, changes.fixed_worst, images, alpha),
        ),
        limit,
    )


def _class_recall(part: ClassParity, floor: float, alpha: float, factor: float) -> Outcome:
    images = round(part.images * factor)
    recall = paired_tests.clopper_pearson(round((part.recall or 0) * images), images, alpha)
    return within(Interval(1 - recall.high, 1 - recall.low), 1 - floor)


def _measured(parity: Parity, limits: Limits) -> Iterator[_Finding]:
    rise = parity.ece - parity.reference_ece
    for what, value, limit in (
        (
            "largest probability difference",
            parity.largest_probability_difference,
            limits.largest_probability_difference,
        ),
        ("mean probability difference", parity.mean_probability_difference, limits.largest_mean_probability_difference),
        ("rise of the calibration error", rise, limits.largest_ece_rise),
    ):
        if value > limit:
            yield _Finding(Outcome.FAIL, f"{what} {value:.4f}, {limit:g} allowed")


def _advice(findings: list[_Finding], images: int) -> str:
    undecided = [finding for finding in findings if finding.outcome is Outcome.INCONCLUSIVE]
    if any(finding.images is None for finding in undecided):
        return f"{images} images do not decide; at these rates no number of images would, or a class has none"
    needed = max(finding.images or 0 for finding in undecided)
    return f"{images} images do not decide; about {needed:,} like them would"


def _scaled(changes: Changes, factor: float) -> Changes:
    return Changes(*(round(count * factor) for count in vars(changes).values()))


def points(share: float) -> str:
    """A share of 1 in percentage points."""
    return f"{share * 100:.2f}"
