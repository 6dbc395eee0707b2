"""Shards added up: the same figures as of all images at once, to the last bit, in whatever order and number."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.artifacts.outputs import dequantize
from harness.core.cell import Cell
from harness.judge import parity, policy, predictions, tally
from harness.judge.predictions import Counted, Judged, Predictions
from harness.judge.tally import exact_sum

IMAGES, CLASSES = 300, 5
FLOAT, INT8 = Cell("float32"), Cell("int8")


def answered(seed: int, part: slice = slice(None)) -> Predictions:
    """Random answers with int8 ties, of a float32 and an int8 variant."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (IMAGES, CLASSES))
    reference = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    float32 = reference + rng.normal(0, 1e-7, reference.shape).astype(np.float32)
    stored = np.clip(np.round(reference * 256 + rng.normal(0, 3, reference.shape)) - 128, -128, 127).astype(np.int8)
    for row in stored[::10]:
        row[np.argsort(row)[-2:]] = np.sort(row)[-2:].mean()  # a tie
    labels = rng.integers(0, CLASSES, IMAGES)
    pixels = rng.random(IMAGES)
    return Predictions(
        labels[part],
        reference[part],
        reference[part],
        {FLOAT: float32[part], INT8: dequantize(stored, 1 / 256, -128)[part]},
        pixels[part],
        {INT8: (pixels[part], 1e-5)},
    )


def in_shards(seed: int, cuts: list[int], order: Random) -> Counted:
    """The int8 variant's answers counted shard by shard, added up in a random order and grouping."""
    ends = sorted({0, *cuts, IMAGES})
    parts = [predictions.count(INT8, answered(seed, slice(a, b)), policy.load(), a) for a, b in pairwise(ends)]
    while len(parts) > 1:
        order.shuffle(parts)
        parts.append(parts.pop() + parts.pop())
    return parts[0]


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 5), st.lists(st.integers(1, IMAGES - 1), max_size=20), st.randoms(use_true_random=False))
def test_any_shards_in_any_order_give_the_same_verdict(seed: int, cuts: list[int], order: Random) -> None:
    """Every figure, interval, stage and reason is equal, not nearly equal."""
    whole = predictions.judge(INT8, answered(seed), policy.load())
    assert whole.parity is not None
    assert whole.parity.ties > 0
    assert predictions.conclude(INT8, in_shards(seed, cuts, order), policy.load()) == whole


@pytest.mark.parametrize("classes", [2, 130, 1000])
def test_sums_over_many_classes_do_not_depend_on_the_shards(classes: int) -> None:
    """Nor on how NumPy groups the numbers of a row: image by image all is as in one piece, to the last bit."""
    rng = np.random.default_rng(0)
    reference = rng.dirichlet(np.full(classes, 0.1), 50).astype(np.float32)
    outputs = (reference * rng.normal(1, 0.01, reference.shape)).astype(np.float32)
    labels = rng.integers(0, classes, 50)
    whole = tally.count(outputs, reference, labels, cap=0.001)
    images = [tally.count(outputs[i : i + 1], reference[i : i + 1], labels[i : i + 1], i, cap=0.001) for i in range(50)]
    assert parity.figures(tally.total(images)) == parity.figures(whole)


@pytest.mark.parametrize("broken", ["nan", "constant", "raw", "swapped", "shifted", "fed"])
def test_refusals_and_diagnoses_are_the_same_in_shards(broken: str) -> None:
    """What shows only over shard borders is seen: where NaN is, that all is constant, which two images are swapped."""
    rng = np.random.default_rng(1)
    reference = np.full((60, CLASSES), 0.01)
    labels = rng.integers(0, CLASSES, 60)
    reference[np.arange(60), labels] = 0.96
    outputs, fed = reference.copy(), np.zeros(60)
    if broken == "nan":
        outputs[[3, 50]] = np.nan
    elif broken == "constant":
        outputs[:] = outputs[0]
    elif broken == "raw":
        outputs = np.round(outputs * 256) - 128
    elif broken == "swapped":
        other = int(np.flatnonzero(labels != labels[2])[-1])
        outputs[[2, other]] = outputs[[other, 2]]
    elif broken == "shifted":
        outputs = np.roll(outputs, 1, axis=1)
    else:
        fed[[7, 41]] = 0.1, 0.2

    def judged(cuts: list[int]) -> Judged:
        parts = [
            predictions.count(
                INT8,
                Predictions(
                    labels[a:b],
                    reference[a:b],
                    None,
                    {INT8: outputs[a:b]},
                    np.zeros(b - a),
                    {INT8: (fed[a:b], 0.01)},
                ),
                policy.load(),
                a,
            )
            for a, b in pairwise(cuts)
        ]
        return predictions.conclude(INT8, tally.total(reversed(parts)), policy.load())

    whole = judged([0, 60])
    assert whole.verdict.outcome == "FAIL"
    assert judged([0, 5, 40, 60]) == whole


def test_a_stage_that_one_shard_lacks_is_left_out_of_the_chain() -> None:
    """float32 with NaN in one shard is no stage of int8's chain, in shards as in one."""
    first, second = answered(0, slice(0, 100)), answered(0, slice(100, IMAGES))
    second.cells[FLOAT][0] = np.nan
    diffs = (
        predictions.count(INT8, first, policy.load()) + predictions.count(INT8, second, policy.load(), 100)
    ).chain.diffs
    assert [diff.target for diff in diffs] == ["folded Keras", "int8"]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=64), max_size=50))
def test_sums_are_exact(values: list[float]) -> None:
    """As adding fractions is: from the smallest subnormal to the largest number."""
    assert exact_sum(np.array(values)) == sum(map(Fraction, values), Fraction(0))
