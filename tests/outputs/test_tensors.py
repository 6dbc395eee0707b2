"""Outputs that are no classes are judged by their numbers: regression, maps, embeddings, several outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from harness.artifacts import manifest
from harness.cli import main
from harness.core.cell import Cell
from harness.core.outcome import Outcome
from harness.judge import policy, tensors
from tests.conftest import refusal
from tests.outputs.rig import SHAPE, TWO, Home, paint

POLICY = """
[limits]
max_off_share = 0.2
max_mean_tensor_error = 0.2
min_mean_cosine = 0.9
[variant.float32]
max_off_share = 0.2
max_mean_tensor_error = 0.1
min_mean_cosine = 0.9
"""


def build(kind: str) -> Any:
    """A model with random weights: of convolutions, and ends of a kind."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    image = keras.Input(SHAPE, name="image")
    x = layers.Conv2D(6, 3, padding="same", activation="relu")(image)
    pooled = layers.GlobalAveragePooling2D()(layers.BatchNormalization()(x))
    ends = {
        "map": layers.Conv2D(2, 1, name="map")(x),
        "embedding": layers.UnitNormalization(name="embedding")(layers.Dense(5)(pooled)),
        "age": layers.Dense(1, name="age")(pooled),
        "answer": layers.Dense(2, activation="softmax", name="answer")(pooled),
    }
    model = keras.Model(
        image, {name: ends[name] for name in ("map", "answer", "age")} if kind == "several" else ends[kind]
    )
    if kind == "age":
        model.compile(loss="mse")
    return model


def home_of(kind: str, folder: Path) -> Home:
    home = Home(folder)
    build(kind).save(home.model)
    (folder / "policy.toml").write_text(POLICY)
    if kind == "several":
        (folder / "model.toml").write_text(f"class_names = {json.dumps(TWO)}")
    paint(folder / "calibration", 20, 1)
    paint(folder / "test", 40, 2)
    assert home.convert("--variants", "float32,int8") == 0
    return home


@pytest.mark.parametrize("kind", ["age", "map", "embedding"])
def test_one_tensor_is_judged_by_its_numbers(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the Keras model to a verdict, the same in shards, and again from the record."""
    home = home_of(kind, tmp_path)
    shape = {"age": (1,), "map": (8, 8, 2), "embedding": (5,)}[kind]
    assert [(o.kind, o.shape) for o in manifest.read(home.variants)["int8"].spec.outputs] == [("tensor", shape)]
    assert home.check("--policy", str(tmp_path / "policy.toml")) == 0
    cells = home.record["cells"]
    for cell, largest in zip(cells, (1e-3, 0.5), strict=True):
        (judged,) = cell["tensors"]
        assert judged["numbers"] == np.prod(shape)
        assert judged["mean_error"] <= judged["max_error"] < largest
        assert (judged["min_cosine"] is None) == (kind == "age")
        assert cell["parity"] is None
    assert np.load(tmp_path / "check.npz")["int8.outputs"].shape == (80, np.prod(shape))
    assert main(["verdict", str(tmp_path / "check.json")]) == 0
    assert main(["report", str(tmp_path / "check.json"), "--html", str(tmp_path / "c.html"), "--markdown", "-"]) == 0
    table = "| **int8** "
    assert f"| {kind} " in capsys.readouterr().out.split(table)[-1]
    assert "Outputs that are no classes" in (tmp_path / "c.html").read_text()
    assert main(["report", str(tmp_path / "check.json"), "--prefer", "least-changed"]) == 0
    shown = capsys.readouterr().out
    assert "lowest cosine" in shown or kind == "age"
    assert "ship float32" in shown
    assert home.check("--policy", str(tmp_path / "policy.toml"), "--shards", "3") == 0
    assert home.record["cells"] == cells
    assert main(["explain", "int8", "--models", str(home.variants), "--data", str(tmp_path / "test")]) in (0, 2)
    capsys.readouterr()
    code = main(["evaluate", str(home.model), "--models", str(home.variants), "--data", str(tmp_path / "test")])
    assert "expected classes alone" in refusal(capsys, code)


def test_several_outputs_of_which_one_is_classes(tmp_path: Path) -> None:
    """The classes by accuracy, the others by their numbers; on the compiled CPU, too; compared with itself."""
    home = home_of("several", tmp_path)
    spec = manifest.read(home.variants)["int8"].spec
    assert {output.kind for output in spec.outputs} == {"classes", "tensor"}
    assert len(spec.class_names) == 2
    few = tmp_path / "few.toml"
    few.write_text(POLICY.replace("[limits]", "[limits]\nmax_flip_share = 0.9\nmax_far_share = 0.9"))
    home.check("--policy", str(few), "--accelerator", "cpu,cpu-compiled")
    for cell in home.record["cells"]:
        assert cell["parity"]["flips"] <= 4
        assert len(cell["tensors"]) == 2
        assert {judged["name"] for judged in cell["tensors"]} == {o.name for o in spec.outputs if o.kind == "tensor"}
        assert all(judged["max_error"] < 0.5 for judged in cell["tensors"])
    record = str(tmp_path / "check.json")
    assert main(["compare", record, record]) in (0, 3)


def test_the_config_says_what_the_last_layer_does_not(tmp_path: Path) -> None:
    """A linear output is logits, unless the model was trained by a loss of numbers, or the config says tensor."""
    import keras

    from converters import keras_model
    from harness.images import spec

    model = build("age")
    model.compile(loss="mse")
    model.save(tmp_path / "trained.keras")
    assert keras_model.signature(tmp_path / "trained.keras").outputs[0].kind == "tensor"
    keras.Model(model.input, model.output).save(tmp_path / "bare.keras")
    signature = keras_model.signature(tmp_path / "bare.keras")
    assert signature.outputs[0].kind == "classes"
    (tmp_path / "bare.toml").write_text('output = "tensor"\n')
    bare = tmp_path / "bare.keras"
    assert spec.combine(signature, spec.load_config(bare), bare).class_names == ()


@pytest.mark.parametrize(
    ("spoil", "images", "outcome"),
    [
        (lambda x: x, 800, "PASS"),
        (lambda x: x, 30, "INCONCLUSIVE"),
        (lambda x: x * 1.5, 800, "FAIL"),
        (lambda x: x[:, ::-1], 800, "FAIL"),
        (lambda x: np.where(np.arange(len(x))[:, None] < 40, 0, x), 800, "FAIL"),
        (lambda x: x * np.nan, 800, "NaN or infinite"),
    ],
)
def test_what_is_off_fails(spoil: Any, images: int, outcome: str) -> None:
    """Another scale, another order, a few images lost, NaN; too few images leave it open. In shards the same."""
    reference = np.random.default_rng(0).normal(3, 1, (images, 6)).astype(np.float32)
    limits = policy.load().limits(Cell("int8"))
    outputs = spoil(reference.astype(np.float64))
    counted = tensors.count(outputs, reference)
    halves = tensors.count(outputs[:13], reference[:13]) + tensors.count(outputs[13:], reference[13:])
    if outcome not in Outcome.__members__:
        with pytest.raises(ValueError, match=outcome):
            tensors.figures("x", counted, limits)
        return
    figures = tensors.figures("x", counted, limits)
    assert tensors.figures("x", halves, limits) == figures
    judged = tensors.judge([figures], limits, 0.025)
    assert judged.verdict.outcome is Outcome(outcome)
    assert {check.rule for check in judged.checks} == {
        "max_off_share of x",
        "max_mean_tensor_error of x",
        "min_mean_cosine of x",
    }


def test_more_outputs_make_it_harder_to_fail() -> None:
    """Alpha is shared out: an outcome that fails alone may be open among twenty."""
    limits = policy.load().limits(Cell("int8"))
    reference = np.random.default_rng(0).normal(0, 1, (700, 1))
    outputs = reference.copy()
    outputs[:14] += 1
    figures = tensors.figures("x", tensors.count(outputs, reference), limits)
    alone = tensors.judge([figures], limits, 0.025)
    many = tensors.judge([replace(figures, name=str(n)) for n in range(20)], limits, 0.025)
    assert (alone.checks[0].outcome, many.checks[0].outcome) == (Outcome.FAIL, Outcome.INCONCLUSIVE)
