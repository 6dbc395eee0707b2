"""Mistakes that apps make with a model's outputs, planted and named."""

from __future__ import annotations

import numpy as np
import pytest

from harness.artifacts.outputs import softmax
from harness.tools.app_outputs import Output, explain_outputs

INT8 = Output(1 / 256, -128, "int8")
PROBABILITIES = np.random.default_rng(4).dirichlet(np.full(11, 0.15), 60)
STORED = np.clip(np.round(PROBABILITIES * 256 - 128), -128, 127)
REAL = (STORED + 128) / 256
UNSIGNED = np.where(STORED < 0, STORED + 256, STORED)
PLANTED = [
    ((), REAL),
    (("output not dequantized",), STORED),
    (("output not dequantized and int8 read as uint8",), UNSIGNED),
    (("int8 output read as uint8",), (UNSIGNED + 128) / 256),
    (("int8 output read as uint8, zero point not subtracted",), UNSIGNED / 256),
    (("output zero point not subtracted",), STORED / 256),
    (("output not multiplied by its scale",), STORED + 128),
    (("softmax left out: outputs are logits",), np.log(PROBABILITIES + 1e-9) + 3),
    (("softmax applied twice",), softmax(REAL)),
    (("softmax applied to outputs that were not dequantized",), softmax(STORED)),
    (("only the best class, as 0 and 1",), np.eye(11)[PROBABILITIES.argmax(axis=1)]),
    (("labels shifted by 1 of 11",), np.roll(REAL, 1, axis=1)),
    (("labels shifted by -1 of 11",), np.roll(REAL, -1, axis=1)),
    (("softmax applied twice", "labels shifted by 2 of 11"), np.roll(softmax(REAL), 2, axis=1)),
    (("output not dequantized", "labels shifted by -1 of 11"), np.roll(STORED, -1, axis=1)),
]


@pytest.mark.parametrize(("mistakes", "outputs"), PLANTED, ids=[" and ".join(m) or "right" for m, _ in PLANTED])
def test_every_mistake_with_outputs_is_named(mistakes: tuple[str, ...], outputs: np.ndarray) -> None:
    """Alone, and together with shifted labels."""
    explained = explain_outputs(outputs, REAL, INT8)
    assert explained.known
    assert explained.mistakes == mistakes


def test_a_right_app_is_not_accused() -> None:
    """A hundred times, of float, int8 and int16 models, off by what other kernels round; and a softmax of logits."""
    rng = np.random.default_rng(6)
    for number in range(100):
        probabilities = rng.dirichlet(np.full(2 + number % 20, 0.2), 20)
        outputs = probabilities + rng.normal(0, 0.002, probabilities.shape)
        gives = (Output(), INT8, Output(1 / 32768, 0, "int16"))[number % 3]
        assert explain_outputs(outputs, probabilities, gives).right
    logits = rng.normal(0, 5, (40, 11))
    assert explain_outputs(logits, logits, Output()).right
    assert explain_outputs(softmax(logits), logits, Output()).right
    assert explain_outputs(softmax(softmax(logits)), logits, Output()).mistakes == ("softmax of the app applied twice",)


def test_other_outputs_are_explained_by_none() -> None:
    """Of other images; another number of classes and NaN are refused."""
    other = np.random.default_rng(5).dirichlet(np.full(11, 0.15), 60)
    assert not explain_outputs(other, REAL, INT8).known
    with pytest.raises(ValueError, match="10"):
        explain_outputs(REAL[:, :10], REAL, INT8)
    with pytest.raises(ValueError, match="NaN"):
        explain_outputs(np.full_like(REAL, np.nan), REAL, INT8)
