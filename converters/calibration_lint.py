"""Whether a calibration set can set int8 ranges. NumPy only; run before every quantization that calibrates.

What would silently spoil a conversion is an error, what may be meant is a warning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.core.errors import SetupError
from harness.images.dataset import Dataset, content_hashes
from harness.images.spec import UNLABELLED, ModelSpec

FEWEST = 100  # images, below which ranges still move
FEWEST_OF_CLASS = 5
NAMED = 5  # classes that a message names
TOLERATED = 0.1  # share of the set that may be repeated or constant
MIN_SPAN = 64  # levels from the darkest to the brightest pixel of the set
USUAL = (1, 99)  # percentiles of the test images between which the set's typical image must lie


@dataclass(frozen=True)
class Findings:
    """errors: why the set must not be used; warnings: what a person should know."""

    errors: tuple[str, ...]
    warnings: tuple[str, ...]


def check(
    calibration: Dataset, test: Dataset | None, spec: ModelSpec, what: str = "calibration set"
) -> tuple[str, ...]:
    """The warnings. Raises SetupError, one line, for a set that must not be used.

    test: the images that variants will be judged on. None if there are none to compare with.
    """
    findings = lint(calibration, test, spec)
    if findings.errors:
        raise SetupError(f"{what}: {'; '.join(findings.errors)}")
    return findings.warnings


def lint(calibration: Dataset, test: Dataset | None, spec: ModelSpec) -> Findings:
    """Everything that is wrong or unusual about a calibration set."""
    if unusable := _form(calibration, spec):
        return Findings((unusable,), ())
    errors: list[str] = []
    warnings = list(calibration.notes)
    images = calibration.images
    count = len(images)
    constant = (np.ptp(images, axis=(1, 2)) == 0).all(axis=1) if not spec.input else np.zeros(count, bool)
    hashes = content_hashes(images)
    repeated = count - len(np.unique(hashes))

    labels = calibration.labels[calibration.labels != UNLABELLED]
    expected = spec.class_names if len(labels) else ()
    present = dict(zip(expected, np.bincount(labels, minlength=len(expected)), strict=True))
    if missing := [name for name, number in present.items() if number == 0]:
        errors.append(f"no image of class {_listed(missing)}; add some of every class, or raise --calibration-size")
    if rare := [name for name, number in present.items() if 0 < number < FEWEST_OF_CLASS]:
        warnings.append(f"fewer than {FEWEST_OF_CLASS} images of class {_listed(rare)}")
    if count < FEWEST:
        warnings.append(f"{count} images, fewer than {FEWEST}: ranges may be too narrow")
    if repeated > TOLERATED * count:
        errors.append(f"{repeated} of {count} images repeat another; each should show something new")
    if constant.any():
        (errors if constant.sum() > TOLERATED * count else warnings).append(
            f"{constant.sum()} of {count} images are of one colour throughout; they say nothing of the ranges"
        )
    span = float(np.ptp(images))
    if spec.input and not span:
        errors.append("all of its numbers are the same; expected examples as the model meets them")
    elif not spec.input and span < MIN_SPAN:
        errors.append(f"its pixels span {span:g} of 255 levels; expected 0-255: were they scaled before?")
    if test is None:
        warnings.append("not compared with the test images: there are none here")
    else:
        leaked = np.flatnonzero(np.isin(hashes, content_hashes(test.images)) & ~constant)
        if len(leaked):
            names = _listed([calibration.names[i] for i in leaked[:3]])
            errors.append(
                f"{len(leaked)} images are of the test set ({names}); a test is no test of what it was made from"
            )
        elif not spec.input and span >= MIN_SPAN and not constant.all():
            errors += _unlike(images, test.images)
    return Findings(tuple(errors), tuple(warnings))


def _form(data: Dataset, spec: ModelSpec) -> str:
    """Why the pixels cannot be examined at all. Empty if they can."""
    images = data.images
    if images.ndim != 1 + len(spec.shape) or images.shape[1:] != spec.shape or not len(images):
        return f"images of shape {images.shape}; expected [N, {', '.join(map(str, spec.shape))}]"
    if images.dtype != spec.dtype:
        broken = int((~np.isfinite(images)).any(axis=(1, 2, 3)).sum())
        what = f"{broken} images with NaN or infinity" if broken else f"values {images.min():g} to {images.max():g}"
        return f"{images.dtype} pixels, {what}; expected uint8 0-255, which evaluation scales itself"
    return ""


def _unlike(images: npt.NDArray[np.uint8], tested: npt.NDArray[np.uint8]) -> list[str]:
    """How the set's typical image differs from all that the model is judged on: polarity, scale, contrast."""
    problems = []
    statistics: dict[str, Callable[..., Any]] = {"brightness": np.mean, "contrast": np.std, "background": np.median}
    for what, figure in statistics.items():
        typical = float(np.median(figure(images, axis=(1, 2, 3))))
        low, high = np.percentile(figure(tested, axis=(1, 2, 3)), USUAL)
        if not low <= typical <= high:
            problems.append(f"{what} {typical:.0f} where the test images have {low:.0f} to {high:.0f}")
    if not problems:
        return []
    return [f"{', '.join(problems)}: inverted, or scaled otherwise than in evaluation?"]


def _listed(items: list[str]) -> str:
    more = len(items) - NAMED
    return ", ".join(items[:NAMED]) + (f" and {more} more" if more > 0 else "")
