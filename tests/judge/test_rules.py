"""The rules of judgement on made-up answers: what passes, what fails, what the images cannot decide."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from harness.core.cell import Cell
from harness.core.outcome import Outcome, Verdict, overall
from harness.judge import parity, policy, rules
from harness.judge.parity import Parity
from harness.judge.rules import Judgement

CLASSES = 11


def answered(
    images: int = 2200, *, broken: int = 0, fixed: int = 0, wrong: int = 40, shift: float = 0.0, classes: int = CLASSES
) -> Parity:
    """Figures of a reference with some wrong answers, and a variant that breaks and fixes some.

    shift: probability moved from each answer's class to the next one.
    """
    rng = np.random.default_rng(0)
    labels = np.arange(images) % classes
    order = rng.permutation(images)
    expected = labels.copy()
    expected[order[:wrong]] = (labels[order[:wrong]] + 1) % classes
    answer = expected.copy()
    answer[order[:fixed]] = labels[order[:fixed]]
    answer[order[wrong : wrong + broken]] = (labels[order[wrong : wrong + broken]] + 3) % classes
    reference, outputs = (np.full((images, classes), 0.1 / classes) for _ in range(2))
    confidence = 0.4  # so that a flip moves probabilities by less than half
    for values, top in ((reference, expected), (outputs, answer)):
        values[np.arange(images), top] += confidence
        values[np.arange(images), (top + 5) % classes] += 0.9 - confidence - 0.2
        values[np.arange(images), (top + 6) % classes] += 0.2
    outputs[np.arange(images), answer] -= shift
    outputs[np.arange(images), (answer + 1) % classes] += shift
    return parity.compare(outputs, reference, labels)


def judge(figures: Parity, kind: str = "int8") -> Judgement:
    return rules.judge(Cell(kind), figures, policy.load())


@pytest.mark.parametrize("kind", ["float32", "float16", "dynamic_range", "int8", "a kind of tomorrow"])
def test_an_identical_copy_passes(kind: str) -> None:
    """On 2,200 images, whatever its kind; and the reasons say what that rests on."""
    judged = judge(answered(), kind).verdict
    assert judged.outcome is Outcome.PASS
    assert "accuracy drop 0.00 points, 95% interval -0.17 to 0.17, 0.50 allowed" in judged.reasons


@pytest.mark.parametrize(("broken", "fixed"), [(1, 0), (3, 0), (2, 1), (0, 3)])
def test_a_good_int8_passes(broken: int, fixed: int) -> None:
    """One to three flips in 2,200, as the shipped one has."""
    assert judge(answered(broken=broken, fixed=fixed)).verdict.outcome is Outcome.PASS


def test_what_mlperf_passes_we_do_not() -> None:
    """litert-quantizer's moving-average int8: 33 flips of 1,500, 1.3 points lost, 98.7 % of the reference's."""
    figures = answered(1500, broken=26, fixed=7, wrong=35)
    assert figures.accuracy / figures.reference_accuracy > 0.98
    judged = judge(figures).verdict
    assert judged.outcome is Outcome.FAIL
    assert any("33 of 1500 answers differ" in reason for reason in judged.reasons)


def test_one_flip_fails_float32() -> None:
    """Its policy allows none, on any number of images."""
    judged = judge(answered(broken=1), "float32").verdict
    assert judged.outcome is Outcome.FAIL
    assert any("1 of 2200 answers differ from the reference, none may" in reason for reason in judged.reasons)


def test_thirty_images_decide_nothing_and_say_how_many_would() -> None:
    """No answer changed, but the interval reaches 11 points: INCONCLUSIVE, with the number of images needed."""
    judgement = judge(answered(33, wrong=1))
    assert judgement.verdict.outcome is Outcome.INCONCLUSIVE
    assert judgement.verdict.reasons[-1].startswith("33 images do not decide; about ")
    needed = int(judgement.verdict.reasons[-1].split("about ")[1].split()[0].replace(",", ""))
    assert judgement.statistics is not None
    assert judgement.statistics.smallest_certifiable_drop == pytest.approx(0.106, abs=0.002)
    assert judge(answered(round(needed * 1.1), wrong=30)).verdict.outcome is Outcome.PASS


def test_a_drop_between_both_ends_is_inconclusive() -> None:
    """8 of 2,200 broken: at worst 0.7 points, at best 0.16; half a point is allowed."""
    judged = judge(answered(broken=8)).verdict
    assert judged.outcome is Outcome.INCONCLUSIVE
    assert "0.36 points" in judged.reasons[0]


def test_a_drop_surely_beyond_the_margin_fails() -> None:
    """30 of 2,200 broken, none fixed."""
    judged = judge(answered(broken=30)).verdict
    assert judged.outcome is Outcome.FAIL
    assert "accuracy drop 1.36 points" in judged.reasons[0]


def test_a_dead_class_fails_and_is_named() -> None:
    """A class that is never answered any more, in a set where it is rare: 1 % of all images."""
    labels = np.repeat([0, 1], [1980, 20])
    reference = np.eye(2)[labels] * 0.2 + 0.4
    outputs = np.tile([0.55, 0.45], (2000, 1))
    outputs[0] = [0.56, 0.44]
    judged = judge(parity.compare(outputs, reference, labels)).verdict
    assert judged.outcome is Outcome.FAIL
    assert any("class 1: recall 0.00% of 20 images and never answered" in reason for reason in judged.reasons)


def test_a_class_without_images_is_not_passed() -> None:
    """Nothing is known of it: INCONCLUSIVE."""
    reference = np.tile([0.6, 0.3, 0.1], (2200, 1))
    reference[:1100] = [0.3, 0.6, 0.1]
    judged = judge(parity.compare(reference, reference, reference.argmax(axis=1))).verdict
    assert judged.outcome is Outcome.INCONCLUSIVE
    assert judged.reasons[0] == "class 2: no images"


def test_other_confidences_fail_without_a_flip() -> None:
    """Every answer kept, every confidence moved by 0.05."""
    figures = answered(shift=0.05)
    assert figures.flips == 0
    judged = judge(figures).verdict
    assert judged.outcome is Outcome.FAIL
    assert judged.reasons[0] == "mean probability difference 0.0500, 0.02 allowed"


def test_without_scipy_nothing_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a 32-bit Raspberry Pi: INCONCLUSIVE, with what to install and where else to judge."""
    for module in [name for name in sys.modules if name.partition(".")[0] == "scipy"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "scipy", None)
    judgement = judge(answered())
    assert judgement.verdict.outcome is Outcome.INCONCLUSIVE
    assert "harness verdict RECORD.json" in judgement.verdict.reasons[0]
    assert judgement.statistics is None


def test_the_overall_outcome_is_the_worst() -> None:
    """FAIL outweighs INCONCLUSIVE outweighs PASS; nothing judged is a FAIL."""
    passed, unclear, failed = (
        Verdict(outcome, ("why",)) for outcome in (Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.FAIL)
    )
    assert overall([passed, passed]) is Outcome.PASS
    assert overall([passed, unclear]) is Outcome.INCONCLUSIVE
    assert overall([unclear, failed, passed]) is Outcome.FAIL
    assert overall([]) is Outcome.FAIL
