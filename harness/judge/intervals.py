"""Intervals of a variant's figures: the low end with ties for the variant, the high end with ties against it."""

from __future__ import annotations

from msgspec.structs import astuple, replace

from harness.core.outcome import Interval
from harness.judge import paired_tests
from harness.judge.parity import Changes, Parity


def scaled(parity: Parity, factor: float) -> Parity:
    """Were there more images by a factor, and all counts with them."""

    def more(count: int) -> int:
        return round(count * factor)

    def changes(counts: Changes) -> Changes:
        return Changes(*map(more, astuple(counts)))

    classes = tuple(
        replace(
            part,
            images=more(part.images),
            right_best=more(part.right_best),
            right_worst=more(part.right_worst),
            changes=changes(part.changes),
        )
        for part in parity.classes
    )
    return replace(
        parity,
        images=more(parity.images),
        flips_best=more(parity.flips_best),
        flips_worst=more(parity.flips_worst),
        far=more(parity.far),
        changes=changes(parity.changes),
        classes=classes,
    )


def drop(changes: Changes, images: int, alpha: float, fail_alpha: float | None = None) -> Interval:
    """fail_alpha: of the low end, beyond which the variant fails, if it is not alpha."""
    return Interval(
        paired_tests.min_drop(changes.regressions_best, changes.improvements_best, images, fail_alpha or alpha),
        paired_tests.max_drop(changes.regressions_worst, changes.improvements_worst, images, alpha),
    )


def share(best: int, worst: int, images: int, alpha: float, fail_alpha: float | None = None) -> Interval:
    return Interval(
        paired_tests.clopper_pearson(best, images, fail_alpha or alpha).low,
        paired_tests.clopper_pearson(worst, images, alpha).high,
    )


def flip_share(parity: Parity, alpha: float) -> Interval:
    return share(parity.flips_best, parity.flips_worst, parity.images, alpha)


def far_share(parity: Parity, alpha: float) -> Interval:
    return share(parity.far, parity.far, parity.images, alpha)


def mean_difference(parity: Parity, alpha: float) -> Interval:
    values = parity.capped_probability_difference
    return paired_tests.mean_interval(values.mean, values.variance, parity.images, Interval(0, parity.cap), alpha)


def log_loss_rise(parity: Parity, alpha: float) -> Interval | None:
    """None without labels."""
    if parity.capped_log_loss_rise is None:
        return None
    values, bounds = parity.capped_log_loss_rise, Interval(-parity.cap, parity.cap)
    return paired_tests.mean_interval(values.mean, values.variance, parity.images, bounds, alpha)
