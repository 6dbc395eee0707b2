"""The rules of judgement on made-up answers: what passes, what fails, what the images cannot decide."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from harness.core.cell import Cell
from harness.core.outcome import Outcome, Verdict, overall
from harness.judge import parity, policy, rules
from harness.judge.parity import Parity
from harness.judge.policy import Limits, Policy
from harness.judge.rules import Judgement

CLASSES = 11


@cache
def answered(
    images: int = 2200,
    *,
    regressions: int = 0,
    improvements: int = 0,
    wrong: int = 40,
    shift: float = 0.0,
    classes: int = CLASSES,
    cap: float = 0.5,
) -> Parity:
    """Figures of a reference with some wrong answers, and a variant with regressions and improvements.

    shift: probability moved from each answer's class to the next one.
    """
    rng = np.random.default_rng(0)
    labels = np.arange(images) % classes
    order = rng.permutation(images)
    expected = labels.copy()
    expected[order[:wrong]] = (labels[order[:wrong]] + 1) % classes
    answer = expected.copy()
    answer[order[:improvements]] = labels[order[:improvements]]
    answer[order[wrong : wrong + regressions]] = (labels[order[wrong : wrong + regressions]] + 3) % classes
    reference, outputs = (np.full((images, classes), 0.1 / classes) for _ in range(2))
    confidence = 0.4  # so that a flip moves probabilities by less than half
    for values, top in ((reference, expected), (outputs, answer)):
        values[np.arange(images), top] += confidence
        values[np.arange(images), (top + 5) % classes] += 0.9 - confidence - 0.2
        values[np.arange(images), (top + 6) % classes] += 0.2
    outputs[np.arange(images), answer] -= shift
    outputs[np.arange(images), (answer + 1) % classes] += shift
    return parity.compare(outputs, reference, labels, cap=cap)


def judge(figures: Parity, kind: str = "int8", limits: Policy | None = None) -> Judgement:
    return rules.judge(Cell.parse(kind), figures, limits or policy.load())


@pytest.mark.parametrize("kind", ["float32", "float16", "dynamic_range", "int8", "a kind of tomorrow"])
def test_an_identical_copy_passes(kind: str) -> None:
    """On 2,200 images, whatever its kind; and the reasons say what that rests on."""
    judged = judge(answered(cap=policy.load().limits(Cell.parse(kind)).max_probability_difference), kind).verdict
    assert judged.outcome is Outcome.PASS
    assert "accuracy drop 0.00 points, 95% interval -0.17 to 0.17, 0.50 allowed" in judged.reasons


@pytest.mark.parametrize(("regressions", "improvements"), [(1, 0), (3, 0), (2, 1), (0, 3)])
def test_a_good_int8_passes(regressions: int, improvements: int) -> None:
    """One to three flips in 2,200, as the shipped one has."""
    assert judge(answered(regressions=regressions, improvements=improvements)).verdict.outcome is Outcome.PASS


def test_what_mlperf_passes_we_do_not() -> None:
    """litert-quantizer's moving-average int8: 33 flips of 1,500, 1.3 points lost, 98.7 % of the reference's."""
    figures = answered(1500, regressions=26, improvements=7, wrong=35)
    assert figures.accuracy
    assert figures.reference_accuracy
    assert figures.accuracy / figures.reference_accuracy > 0.98
    judged = judge(figures).verdict
    assert judged.outcome is Outcome.FAIL
    assert any("33 of 1500 answers differ" in reason for reason in judged.reasons)


def unmoved(regressions: int) -> Parity:
    """Answers that change where the reference is undecided, so that no probability moves."""
    figures, same = answered(regressions=regressions), answered(cap=0.001)
    return replace(same, flips=figures.flips, flips_best=figures.flips_best, flips_worst=figures.flips_worst)


def test_one_flip_of_2200_does_not_prove_what_float32_is_asked_for() -> None:
    """At most 0.2 % may flip: 1 of 2,200 is undecided and says how many images would do, 20 fail."""
    judged = judge(unmoved(regressions=1), "float32").verdict
    assert judged.outcome is Outcome.INCONCLUSIVE
    text = "1 of 2200 answers differ from the reference, 95% interval 0.00% to 0.25%, 0.20% allowed"
    assert judged.reasons == (text, "2200 images do not decide; about 3,700 like them would")
    judged = judge(unmoved(regressions=20), "float32").verdict
    assert judged.outcome is Outcome.FAIL
    assert any("20 of 2200 answers differ" in reason for reason in judged.reasons)


def test_thirty_images_decide_nothing_and_say_how_many_would() -> None:
    """No answer changed, but the interval reaches 11 points: INCONCLUSIVE, with the number of images needed."""
    judgement = judge(answered(33, wrong=1))
    assert judgement.verdict.outcome is Outcome.INCONCLUSIVE
    assert judgement.verdict.reasons[-1].startswith("33 images do not decide; about ")
    needed = int(judgement.verdict.reasons[-1].split("about ")[1].split()[0].replace(",", ""))
    assert judgement.statistics is not None
    assert judgement.statistics.min_margin == pytest.approx(0.106, abs=0.002)
    assert judge(answered(round(needed * 1.1), wrong=30)).verdict.outcome is Outcome.PASS


def test_a_drop_between_both_ends_is_inconclusive() -> None:
    """8 of 2,200 regressions: at worst 0.7 points, at best 0.16; half a point is allowed."""
    judged = judge(answered(regressions=8)).verdict
    assert judged.outcome is Outcome.INCONCLUSIVE
    assert "0.36 points" in judged.reasons[0]


def test_a_drop_surely_beyond_the_margin_fails() -> None:
    """30 of 2,200 regressions, none improvements."""
    judged = judge(answered(regressions=30)).verdict
    assert judged.outcome is Outcome.FAIL
    assert "accuracy drop 1.36 points" in judged.reasons[0]


def test_a_dead_class_fails_and_is_named() -> None:
    """A class that is never answered any more, in a set where it is rare: 1 % of all images."""
    labels = np.repeat([0, 1], [1980, 20])
    reference = np.eye(2)[labels] * 0.2 + 0.4
    outputs = np.tile([0.55, 0.45], (2000, 1))
    outputs[0] = [0.56, 0.44]
    judged = judge(parity.compare(outputs, reference, labels, cap=0.5)).verdict
    assert judged.outcome is Outcome.FAIL
    assert any("class 1: recall 0.00% of 20 images and never answered" in reason for reason in judged.reasons)


def test_a_dead_class_of_three_hundred_fails() -> None:
    """Though alpha is shared out over all of them."""
    labels = np.repeat(np.arange(300), 20)
    reference = np.full((6000, 300), 0.0015)
    reference[np.arange(6000), labels] = 0.5
    outputs = reference.copy()
    outputs[:20, 0], outputs[:20, 1] = 0.24, 0.2615
    judgement = judge(parity.compare(outputs, reference, labels, cap=0.5))
    (check,) = (check for check in judgement.checks if check.outcome is Outcome.FAIL)
    assert check.rule == "max_class_drop"
    assert check.reasons == (
        "class 0: recall 0.00% of 20 images and never answered, the reference's 100.00%, 5.00 points allowed",
    )


def test_a_class_without_images_is_not_passed() -> None:
    """Nothing is known of it: INCONCLUSIVE."""
    reference = np.tile([0.6, 0.3, 0.1], (2200, 1))
    reference[:1100] = [0.3, 0.6, 0.1]
    judged = judge(parity.compare(reference, reference, reference.argmax(axis=1), cap=0.5)).verdict
    assert judged.outcome is Outcome.INCONCLUSIVE
    assert judged.reasons[0] == "1 of 3 classes without images: 2"


def test_many_classes_with_too_few_images_take_one_line() -> None:
    """The fewest are named, and the advice says how many images are needed."""
    labels = np.concatenate([np.arange(11), np.full(1990, 10)])
    reference = np.full((2001, 11), 0.05)
    reference[np.arange(2001), labels] = 0.5
    judged = judge(parity.compare(reference, reference, labels, cap=0.5)).verdict
    assert judged.outcome is Outcome.INCONCLUSIVE
    assert judged.reasons[0] == (
        "10 of 11 classes with too few images for max_class_drop: 0 (recall 100.00% of 1 images), "
        "1 (recall 100.00% of 1 images), 2 (recall 100.00% of 1 images) and 7 more"
    )
    assert judged.reasons[1].startswith("2001 images do not decide; about 150,000 like them")
    assert len(judged.reasons) == 2


def with_class_recall(right: list[int], of: int, ties: int = 0) -> Parity:
    """Figures in which each class has so many right answers, and as many ties that were answered rightly."""
    figures = answered(of * len(right), classes=len(right))
    parts = zip(figures.classes, right, strict=True)
    classes = tuple(
        replace(part, images=of, recall=count / of, right_best=count, right_worst=count - ties) for part, count in parts
    )
    return replace(figures, classes=classes)


@pytest.fixture
def floor(tmp_path: Path) -> Policy:
    """A policy that asks for a recall of 0.9 of each class, and for nothing else."""
    path = tmp_path / "floor.toml"
    unlimited = [key for key in Limits.__struct_fields__ if key.startswith("max_")]
    path.write_text("[limits]\nmin_accuracy_ratio = 0\nmin_recall = 0.9\n" + "".join(f"{k} = 1\n" for k in unlimited))
    return policy.load(path)


def test_recalls_at_the_limit_fail_in_at_most_alpha_of_all_test_sets(floor: Policy) -> None:
    """11 classes of 200 images whose true recall is 0.9: any of them could fail the variant, and one in 40 sets may."""
    limits = floor.limits(Cell("int8"))
    draws = np.random.default_rng(0).binomial(200, 0.9, (2000, 11))
    failed = sum(
        rules.RULES["min_recall"](with_class_recall(row, 200), limits, floor.alpha)[0] is Outcome.FAIL
        for row in draws.tolist()
    )
    assert failed <= 0.025 * len(draws)


def test_a_low_recall_fails_and_a_high_one_passes(floor: Policy) -> None:
    """One class of eleven decides; PASS needs the lower end of every class's interval."""
    judged = judge(with_class_recall([200] * 10 + [150], 200), limits=floor).verdict
    assert judged.outcome is Outcome.FAIL
    assert judged.reasons == ("class 10: recall 75.00% of 200 images, at least 90.00% asked",)
    assert judge(with_class_recall([190] * 11, 200), limits=floor).verdict.outcome is Outcome.PASS
    assert judge(with_class_recall([182] * 11, 200), limits=floor).verdict.outcome is Outcome.INCONCLUSIVE


def test_ties_count_for_and_against_a_recall(floor: Policy) -> None:
    """190 of 200 pass, but not if 30 of them were answered by luck; then they do not fail either."""
    assert judge(with_class_recall([190] * 11, 200, ties=30), limits=floor).verdict.outcome is Outcome.INCONCLUSIVE


def test_other_confidences_fail_without_a_flip() -> None:
    """Every answer kept, every confidence moved by 0.05."""
    figures = answered(shift=0.05)
    assert figures.flips == 0
    judged = judge(figures).verdict
    assert judged.outcome is Outcome.FAIL
    assert judged.reasons[0] == "mean probability difference 0.0500, 95% interval 0.0477 to 0.0523, 0.02 allowed"


def confident(images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A calibrated reference, as sure as a trained model is, and labels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1, (images, CLASSES))
    logits[np.arange(images), rng.integers(0, CLASSES, images)] += rng.normal(9, 2, images)
    reference = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(CLASSES, p=row) for row in reference])
    return reference, labels


def cooled(reference: np.ndarray, temperature: float) -> np.ndarray:
    powers = reference ** (1 / temperature)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def test_a_miscalibrated_variant_fails_and_a_slightly_moved_one_does_not() -> None:
    """361 images: at temperature 3 FAIL, by the log loss; probabilities moved by 0.002 on average never do."""
    for seed in range(20):
        reference, labels = confident(361, seed)
        moved = cooled(reference * np.exp(np.random.default_rng(seed).normal(0, 0.06, reference.shape)), 1)
        figures = parity.compare(moved, reference, labels, cap=0.5)
        assert 0.0005 < figures.mean_probability_difference < 0.004
        checks = {check.rule: check.outcome for check in judge(figures).checks}
        assert checks["max_log_loss_rise"] is not Outcome.FAIL
        checks = {
            c.rule: c.outcome for c in judge(parity.compare(cooled(reference, 3), reference, labels, cap=0.5)).checks
        }
        assert checks["max_log_loss_rise"] is Outcome.FAIL


def test_the_log_loss_moves_as_little_as_the_probabilities_do() -> None:
    """No jump: a thousandth of a change makes about a thousandth of a rise, whatever the images."""
    reference, labels = confident(361)
    rises = [
        rise.mean
        for step in (1e-3, 1e-6)
        if (rise := parity.compare(cooled(reference, 1 + step), reference, labels, cap=0.5).capped_log_loss_rise)
    ]
    assert abs(rises[0]) < 1e-3
    assert rises[0] / rises[1] == pytest.approx(1000, rel=0.05)


def far(images: int, count: int) -> Parity:
    return replace(answered(images), far=count)


def test_a_rare_confident_change_is_judged_alike_on_few_and_on_many_images() -> None:
    """1 in 10,000 images is far: as good on 50,000 as on 2,200, where none is seen; 500 cannot tell."""
    assert judge(far(500, 0)).verdict.outcome is Outcome.INCONCLUSIVE
    assert judge(far(2200, 0)).verdict.outcome is Outcome.PASS
    assert judge(far(50_000, 5)).verdict.outcome is Outcome.PASS
    judged = judge(far(2200, 30)).verdict
    assert judged.outcome is Outcome.FAIL
    assert judged.reasons == (
        "probabilities differ by more than 0.5 on 30 of 2200 images, 95% interval 0.92% to 1.94%, 0.50% allowed",
    )


def test_no_limits_pass_on_any_images(tmp_path: Path) -> None:
    """1 for every max_ and 0 for every min_: nothing is asked."""
    keys = [key for key in Limits.__struct_fields__ if key.startswith(("max_", "min_"))]
    path = tmp_path / "any.toml"
    path.write_text("[limits]\n" + "".join(f"{key} = {int(key.startswith('max_'))}\n" for key in keys))
    reference = np.tile([0.6, 0.3, 0.1], (3, 1))
    worst = parity.compare(np.roll(reference, 1, axis=1), reference, np.array([0, 0, 0]))
    assert judge(worst, limits=policy.load(path)).verdict.outcome is Outcome.PASS


def test_every_check_is_named_by_its_limit() -> None:
    """So that a report can tell them apart. What is not limited, as a recall by default, has no check."""
    assert [check.rule for check in judge(answered()).checks] == [
        key for key in Limits.__struct_fields__ if key in rules.RULES and key != "min_recall"
    ]
    limited = {key for key in Limits.__struct_fields__ if key.startswith(("max_", "min_"))}
    of_tensors = {"max_tensor_error", "min_cosine", "max_off_share", "max_mean_tensor_error", "min_mean_cosine"}
    of_slices = {"max_slice_drop", "max_slice_flip_share", "max_slice_off_share"}
    assert limited - set(rules.RULES) - of_tensors - of_slices == {"min_accuracy_ratio", "max_probability_difference"}


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


def test_ties_are_the_reason_where_they_leave_it_open() -> None:
    """A thousand flat classes in 256 steps."""
    rng = np.random.default_rng(0)
    reference = rng.dirichlet(np.full(1000, 0.5), 400)
    labels = rng.integers(0, 1000, 400)
    figures = parity.compare(np.round(reference * 256) / 256, reference, labels, cap=0.5)
    judged = judge(figures).verdict
    assert judged.outcome is not Outcome.PASS
    (reason,) = [reason for reason in judged.reasons if "are ties" in reason]
    assert f"{figures.ties} of 400 images are ties: several of 1000 classes" in reason
