"""PASS, FAIL or INCONCLUSIVE, each with its reasons, by a policy's limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from harness.core.cell import Cell
from harness.core.outcome import SEVERITY, Interval, Outcome, Verdict, within
from harness.core.shapes import Shape
from harness.judge import intervals, paired_tests
from harness.judge.parity import ClassParity, Parity
from harness.judge.policy import Limits, Policy

NO_SCIPY = (
    "not judged: SciPy is missing; pip install scipy (on a 32-bit Raspberry Pi: apt install python3-scipy), "
    "or copy the record and its .npz to another machine: harness verdict RECORD.json"
)
MAX_NAMED = 3  # of a list of classes
Ruled = tuple[Outcome, list[str]]  # and what it rests on

HEADLINES = ("max_accuracy_drop", "max_flip_share")  # the reasons of a PASS


class Statistics(Shape):
    """What a variant's figures prove. Intervals of `confidence`, their ends with ties at best and at worst.

    margin: the largest drop that the policy allows. min_margin: the smallest one that these images could certify if no
    answer had changed. The means are the capped ones of Parity. Without labels what is of accuracy is None.
    """

    confidence: float
    accuracy: Interval | None
    reference_accuracy: Interval | None
    drop: float | None
    drop_interval: Interval | None
    margin: float
    min_margin: float
    flip_share: Interval
    far_share: Interval
    mean_probability_difference: Interval
    log_loss_rise: Interval | None
    mcnemar_p: float | None


class Check(Shape):
    """The outcome of one rule, which is named by its key in the policy."""

    rule: str
    outcome: Outcome
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Judgement:
    """A verdict, and the statistics that it rests on. None if they could not be had."""

    verdict: Verdict
    statistics: Statistics | None
    checks: tuple[Check, ...] = ()


def judge(cell: Cell, parity: Parity, policy: Policy) -> Judgement:
    """A cell's verdict: the worst outcome of all rules, and what the rules of that outcome say."""
    limits = policy.limits(cell)
    try:
        statistics = _statistics(parity, limits, policy.alpha)
        checks = tuple(_checks(parity, limits, policy.alpha))
    except ModuleNotFoundError:
        return Judgement(Verdict(Outcome.INCONCLUSIVE, (NO_SCIPY,)), None)
    outcome = max((check.outcome for check in checks), key=SEVERITY.index)
    worst = [check for check in checks if check.outcome is outcome]
    if outcome is Outcome.PASS:
        worst = [check for check in checks if check.rule in HEADLINES]
    reasons = [reason for check in worst for reason in check.reasons]
    if not parity.labelled:
        reasons.append(_without_labels(intervals.flip_share(parity, policy.alpha)))
    if outcome is not Outcome.PASS and parity.ties:
        reasons.append(_ties(parity))
    if outcome is Outcome.INCONCLUSIVE:
        needed = [images_needed(check.rule, parity, limits, policy.alpha) for check in worst]
        reasons.append(advice(needed, parity.images))
    return Judgement(Verdict(outcome, tuple(reasons)), statistics, checks)


def _checks(parity: Parity, limits: Limits, alpha: float) -> Iterator[Check]:
    for rule, judge_rule in RULES.items():
        if rule in OF_LABELS and not parity.labelled:
            continue
        outcome, reasons = judge_rule(parity, limits, alpha)
        if reasons:  # else nothing is limited
            yield Check(rule, outcome, tuple(reasons))


def images_needed(rule: str, parity: Parity, limits: Limits, alpha: float) -> int | None:
    """About how many images would decide what a rule leaves open. None if no number would."""

    def decided(factor: float) -> bool:
        return RULES[rule](intervals.scaled(parity, factor), limits, alpha)[0] is not Outcome.INCONCLUSIVE

    if rule in OF_CLASSES and not all(part.images for part in parity.classes):
        return None
    return paired_tests.images_to_decide(parity.images, decided)


def _ties(parity: Parity) -> str:
    """Why the intervals are as wide as they are, where an output has few steps for many classes."""
    return (
        f"{parity.ties} of {parity.images} images are ties: several of {len(parity.classes)} classes share the largest "
        f"output, as int8's have only 256 steps; with them there are {parity.flips_best} to {parity.flips_worst} flips"
    )


def _without_labels(flip_share: Interval) -> str:
    return (
        "without labels accuracy is not judged; as at most "
        f"{percent(flip_share.high)} of the answers change, it drops by no more"
    )


def _statistics(parity: Parity, limits: Limits, alpha: float) -> Statistics:
    images, changes, labelled = parity.images, parity.changes, parity.labelled

    def wilson(share: float | None) -> Interval | None:
        return None if share is None else paired_tests.wilson(round(share * images), images, alpha)

    return Statistics(
        confidence=1 - 2 * alpha,
        accuracy=wilson(parity.accuracy),
        reference_accuracy=wilson(parity.reference_accuracy),
        drop=(changes.regressions - changes.improvements) / images if labelled else None,
        drop_interval=intervals.drop(changes, images, alpha) if labelled else None,
        margin=_margin(parity, limits),
        min_margin=paired_tests.max_drop(0, 0, images, alpha),
        flip_share=intervals.flip_share(parity, alpha),
        far_share=intervals.far_share(parity, alpha),
        mean_probability_difference=intervals.mean_difference(parity, alpha),
        log_loss_rise=intervals.log_loss_rise(parity, alpha),
        mcnemar_p=paired_tests.mcnemar(changes.regressions, changes.improvements) if labelled else None,
    )


def _margin(parity: Parity, limits: Limits) -> float:
    """The non-inferiority margin: the largest drop in accuracy that is allowed."""
    if not limits.min_accuracy_ratio or parity.reference_accuracy is None:
        return limits.max_accuracy_drop
    return min(limits.max_accuracy_drop, (1 - limits.min_accuracy_ratio) * parity.reference_accuracy)


def _max_accuracy_drop(parity: Parity, limits: Limits, alpha: float) -> Ruled:
    interval, margin = intervals.drop(parity.changes, parity.images, alpha), _margin(parity, limits)
    drop = (parity.changes.regressions - parity.changes.improvements) / parity.images
    text = f"accuracy drop {points(drop)} points, {shown(interval, points, alpha)}, {points(margin)} allowed"
    return within(interval, margin), [text]


def _max_flip_share(parity: Parity, limits: Limits, alpha: float) -> Ruled:
    interval, limit = intervals.flip_share(parity, alpha), limits.max_flip_share
    text = f"{parity.flips} of {parity.images} answers differ from the reference"
    return within(interval, limit), [f"{text}, {shown(interval, percent, alpha)}, {percent(limit)} allowed"]


def _max_far_share(parity: Parity, limits: Limits, alpha: float) -> Ruled:
    interval, limit = intervals.far_share(parity, alpha), limits.max_far_share
    text = f"probabilities differ by more than {parity.cap:g} on {parity.far} of {parity.images} images"
    return within(interval, limit), [f"{text}, {shown(interval, percent, alpha)}, {percent(limit)} allowed"]


def _max_mean_difference(parity: Parity, limits: Limits, alpha: float) -> Ruled:
    interval, limit = intervals.mean_difference(parity, alpha), limits.max_mean_probability_difference
    text = f"mean probability difference {number(parity.capped_probability_difference.mean)}"
    return within(interval, limit), [f"{text}, {shown(interval, number, alpha)}, {limit:g} allowed"]


def _max_log_loss_rise(parity: Parity, limits: Limits, alpha: float) -> Ruled:
    interval, limit = intervals.log_loss_rise(parity, alpha), limits.max_log_loss_rise
    if interval is None or parity.capped_log_loss_rise is None:
        return Outcome.PASS, []
    text = f"rise of the log loss {number(parity.capped_log_loss_rise.mean)}"
    return within(interval, limit), [f"{text}, {shown(interval, number, alpha)}, {limit:g} allowed"]


def _max_class_drop(parity: Parity, limits: Limits, alpha: float) -> Ruled:
    limit, shared = limits.max_class_drop, _shared(parity, alpha)

    def outcome(part: ClassParity) -> Outcome:
        return within(intervals.drop(part.changes, part.images, alpha, shared), limit)

    def text(part: ClassParity) -> str:
        return f"{_recall(part)}, the reference's {percent(part.reference_recall or 0)}, {points(limit)} points allowed"

    return _of_classes(parity, "max_class_drop", outcome, text) if limit < 1 else (Outcome.PASS, [])


def _min_recall(parity: Parity, limits: Limits, alpha: float) -> Ruled:
    limit, shared = limits.min_recall, _shared(parity, alpha)

    def outcome(part: ClassParity) -> Outcome:
        best, worst = part.images - part.right_best, part.images - part.right_worst
        return within(intervals.share(best, worst, part.images, alpha, shared), 1 - limit)

    def text(part: ClassParity) -> str:
        return f"{_recall(part)}, at least {percent(limit)} asked"

    return _of_classes(parity, "min_recall", outcome, text) if limit > 0 else (Outcome.PASS, [])


RULES: dict[str, Callable[[Parity, Limits, float], Ruled]] = {
    "max_accuracy_drop": _max_accuracy_drop,
    "max_flip_share": _max_flip_share,
    "max_class_drop": _max_class_drop,
    "min_recall": _min_recall,
    "max_far_share": _max_far_share,
    "max_mean_probability_difference": _max_mean_difference,
    "max_log_loss_rise": _max_log_loss_rise,
}
OF_CLASSES = ("max_class_drop", "min_recall")
OF_LABELS = ("max_accuracy_drop", *OF_CLASSES, "max_log_loss_rise")


def _shared(parity: Parity, alpha: float) -> float:
    """alpha shared out over the classes, any of which can fail a variant. Not to pass it: for that all must hold."""
    return alpha / max(1, sum(part.images > 0 for part in parity.classes))


def _of_classes(
    parity: Parity, rule: str, outcome: Callable[[ClassParity], Outcome], text: Callable[[ClassParity], str]
) -> Ruled:
    """The classes that fail; if none does, in one line how many lack images. The worst few are named."""
    by_outcome: dict[Outcome, list[ClassParity]] = {Outcome.FAIL: [], Outcome.INCONCLUSIVE: [], Outcome.PASS: []}
    for part in parity.classes:
        if part.images:
            by_outcome[outcome(part)].append(part)
    if failing := sorted(by_outcome[Outcome.FAIL], key=lambda part: part.recall or 0):
        others = [f"and {more} more classes"] if (more := len(failing) - MAX_NAMED) > 0 else []
        return Outcome.FAIL, [text(part) for part in failing[:MAX_NAMED]] + others
    of = f"of {len(parity.classes)} classes"
    reasons = []
    if empty := [part.name for part in parity.classes if not part.images]:
        reasons.append(f"{len(empty)} {of} without images: {first(empty)}")
    if few := sorted(by_outcome[Outcome.INCONCLUSIVE], key=lambda part: (part.images, part.recall)):
        names = [f"{part.name} (recall {percent(part.recall or 0)} of {part.images} images)" for part in few]
        reasons.append(f"{len(few)} {of} with too few images for {rule}: {first(names)}")
    return (Outcome.INCONCLUSIVE, ["; ".join(reasons)]) if reasons else (Outcome.PASS, [f"holds for each {of}"])


def check_parts(rule: str, kind: str, parts: Sequence[tuple[Outcome, str, str]]) -> Check:
    """A rule on slices or labels (kind): those that fail; if none does, those that have too few images.

    parts: the worst first; of each its outcome, and what is said where it fails, and where it has too few images.
    """
    of = f"of {len(parts)} {kind}"
    if failing := [text for outcome, text, _ in parts if outcome is Outcome.FAIL]:
        more = [f"and {len(failing) - MAX_NAMED} more {kind}"] * (len(failing) > MAX_NAMED)
        return Check(rule, Outcome.FAIL, (*failing[:MAX_NAMED], *more))
    if few := [text for outcome, _, text in parts if outcome is Outcome.INCONCLUSIVE]:
        return Check(rule, Outcome.INCONCLUSIVE, (f"{len(few)} {of} with too few images for {rule}: {first(few)}",))
    return Check(rule, Outcome.PASS, (f"{rule} holds for each {of}",))


def first(names: list[str]) -> str:
    """The first few of many, and how many more there are."""
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _recall(part: ClassParity) -> str:
    never = " and never answered" if part.reference_answers and not part.answers else ""
    return f"class {part.name}: recall {percent(part.recall or 0)} of {part.images} images{never}"


def advice(needed: list[int | None], images: int) -> str:
    if None in needed:
        return f"{images} images do not decide; at these rates no number of images would, or a class has none"
    return f"{images} images do not decide; about {max(count or 0 for count in needed):,} like them would"


def shown(interval: Interval, form: Callable[[float], str], alpha: float) -> str:
    return f"{1 - 2 * alpha:.0%} interval {form(interval.low)} to {form(interval.high)}"


def points(share: float) -> str:
    """A share of 1 in percentage points."""
    return f"{share * 100:.2f}"


def percent(share: float) -> str:
    return f"{share:.2%}"


def number(value: float) -> str:
    """To four decimals, or two digits of a small one."""
    return f"{value:.4f}" if abs(value) >= 0.001 or not value else f"{value:.2g}"
