"""Each slice of the images is judged on its own: one that fails, or has too few images, decides for the variant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.core.cell import Cell
from harness.core.outcome import Outcome
from harness.images.spec import UNLABELLED
from harness.judge import policy, predictions
from harness.judge.predictions import Judged, Predictions
from harness.judge.tensors import TensorOutput

INT8 = Cell("int8")
LIMITS = policy.load()


def answered(sizes: dict[str, int], flipped: dict[str, int], *, labelled: bool = True) -> Predictions:
    """Slices of some sizes, and how many answers of each a variant loses."""
    slices = np.repeat(list(sizes), list(sizes.values()))
    labels = np.arange(len(slices)) % 4
    reference = np.full((len(slices), 4), 0.1)
    reference[np.arange(len(slices)), labels] = 0.7
    outputs = reference.copy()
    for name, count in flipped.items():
        lost = np.flatnonzero(slices == name)[:count]
        outputs[lost] = np.roll(outputs[lost], 1, axis=1)
    known = labels if labelled else np.full(len(labels), UNLABELLED)
    return Predictions(known, reference, None, {INT8: outputs}, slices=slices)


def judged(answers: Predictions) -> Judged:
    return predictions.judge(INT8, answers, LIMITS)


@pytest.mark.parametrize(
    ("sizes", "flipped", "outcome", "worst", "reason"),
    [
        ({"moto": 2000, "pixel": 3000}, {}, "PASS", "moto", "max_slice_drop holds for each of 2 slices"),
        ({"moto": 100, "pixel": 9000}, {"moto": 20}, "FAIL", "moto", "slice moto: accuracy 80.00% of 100 images"),
        ({"moto": 30, "pixel": 3000}, {}, "INCONCLUSIVE", "moto", "1 of 2 slices with too few images"),
        ({"pixel": 3000, "one": 1}, {}, "INCONCLUSIVE", "one", "images do not decide; about"),
    ],
)
def test_a_slice_decides(sizes: dict[str, int], flipped: dict[str, int], outcome: str, worst: str, reason: str) -> None:
    """Though all images together pass; the worst slice comes first. The same without labels, by flips alone."""
    for labelled in (True, False):
        result = judged(answered(sizes, flipped, labelled=labelled))
        assert result.verdict.outcome is Outcome(outcome)
        assert result.slices[0].name == worst
        assert {part.name: part.images for part in result.slices} == sizes
        assert (result.slices[0].drop_interval is None) is not labelled
        assert not labelled or any(text.startswith(reason) or reason in text for text in result.verdict.reasons)


def test_a_slice_without_limits_decides_nothing(tmp_path: Path) -> None:
    """A max_ of 1 is no limit; the slice is shown nevertheless."""
    (tmp_path / "p.toml").write_text("[limits]\nmax_slice_drop = 1\nmax_slice_flip_share = 1\nmax_slice_off_share = 1")
    result = predictions.judge(INT8, answered({"moto": 1, "pixel": 4000}, {}), policy.load(tmp_path / "p.toml"))
    assert result.verdict.outcome is Outcome.PASS
    assert [part.images for part in result.slices] == [1, 4000]


def test_in_shards_it_is_the_same() -> None:
    """Whichever slices a shard has; for outputs that are no classes, too."""
    whole = answered({"a": 90, "b": 200, "c": 1}, {"b": 3})
    rng = np.random.default_rng(0)
    numbers = rng.normal(0, 1, (291, 3))
    tensor = TensorOutput("map", numbers, {INT8: numbers + rng.normal(0, 0.1, numbers.shape)})
    for with_classes in (True, False):
        counts = []
        for part in (slice(0, 50), slice(50, 250), slice(250, 291)):
            assert whole.slices is not None
            counts.append(
                predictions.count(
                    INT8,
                    Predictions(
                        whole.labels[part],
                        whole.reference[part] if with_classes else np.empty((part.stop - part.start, 0)),
                        None,
                        {INT8: whole.cells[INT8][part] if with_classes else np.empty((part.stop - part.start, 0))},
                        tensors=(TensorOutput("map", numbers[part], {INT8: tensor.cells[INT8][part]}),),
                        slices=whole.slices[part],
                    ),
                    LIMITS,
                    part.start,
                )
            )
        all_at_once = Predictions(
            whole.labels,
            whole.reference if with_classes else np.empty((291, 0)),
            None,
            {INT8: whole.cells[INT8] if with_classes else np.empty((291, 0))},
            tensors=(tensor,),
            slices=whole.slices,
        )
        merged = predictions.conclude(INT8, counts[2] + (counts[0] + counts[1]), LIMITS)
        assert merged.slices == judged(all_at_once).slices
        assert merged.verdict == judged(all_at_once).verdict
        assert {part.off is None for part in merged.slices} == {False}


def test_alpha_is_shared_out() -> None:
    """Among many slices the same lost answers fail less easily, while passing asks as much of each."""
    alone = judged(answered({"a": 100}, {"a": 12})).slices[0]
    many = judged(answered({"a": 100, **{f"s{n}": 100 for n in range(199)}}, {"a": 12})).slices[0]
    assert alone.name == many.name == "a"
    assert alone.flip_share
    assert many.flip_share
    assert many.flip_share.low < alone.flip_share.low
    assert many.flip_share.high == alone.flip_share.high
    assert (alone.outcome, many.outcome) == (Outcome.FAIL, Outcome.INCONCLUSIVE)
