"""Several independent labels, a sigmoid each, judged label by label, by a table of each image's labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.artifacts import manifest
from harness.cli import main
from harness.core.cell import Cell
from harness.core.errors import SetupError
from harness.core.outcome import Outcome
from harness.images import labels, shards
from harness.images.spec import UNLABELLED, Input, ModelSpec, Output
from harness.judge import policy, predictions
from harness.judge.labels import LabelsOutput
from harness.judge.predictions import Judged, Predictions
from tests.conftest import FEW_IMAGES_POLICY, refusal
from tests.outputs.rig import Home

NAMES = ("red", "green", "blue")


def paint(folder: Path, count: int, seed: int) -> Any:
    """Pictures in which each colour is strong or weak, whatever the others are: uint8, and 0 or 1 for each [N, 3]."""
    rng = np.random.default_rng(seed)
    flags = rng.integers(0, 2, (count, 3))
    levels = 60 + 120 * flags[:, None, None, :] + rng.normal(0, 20, (count, 8, 8, 3))
    pixels = np.clip(levels, 0, 255).astype(np.uint8)
    folder.mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"IMG{number:03}.png")
    return pixels, flags


def table(flags: Any) -> str:
    rows = [f"IMG{number:03}.png,{','.join(map(str, row))},{'ab'[number % 2]}" for number, row in enumerate(flags)]
    return "\n".join([f"file_name,{','.join(NAMES)},phone", *rows])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A model whose last layer is fitted, its variants, its images and their table."""
    import keras
    from keras import layers

    home = Home(tmp_path_factory.mktemp("labels"))
    pixels, flags = paint(home.folder / "train", 200, 0)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, activation="sigmoid"),
        ]
    )
    features = np.asarray(keras.Model(model.inputs[0], model.layers[-2].output)(pixels.astype(np.float32)))
    seen = np.hstack([features, np.ones((len(features), 1))])
    weights, *_ = np.linalg.lstsq(seen, 8.0 * flags - 4, rcond=None)
    model.layers[-1].set_weights([weights[:-1], weights[-1]])
    model.save(home.model)
    (home.folder / "model.toml").write_text(f"class_names = {json.dumps(NAMES)}")
    paint(home.folder / "calibration", 100, 1)
    _, flags = paint(home.folder / "test", 160, 2)
    (home.folder / "test" / "metadata.csv").write_text(table(flags))
    text = FEW_IMAGES_POLICY.read_text().replace("max_class_drop", "max_slice_flip_share = 0.2\nmax_class_drop")
    (home.folder / "policy.toml").write_text(text)
    assert home.convert("--variants", "float32,int8") == 0
    return home


def test_from_images_to_a_verdict(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    """The same in shards and from the record; by slices; without labels; in every format."""
    spec = manifest.read(home.variants)["int8"].spec
    assert (spec.class_names, spec.label_names) == ((), NAMES)
    assert spec.outputs[0].kind == "labels"
    limits = ("--policy", str(home.folder / "policy.toml"))
    assert home.check(*limits, "--shards", "3", "--slice-by", "phone") == 0
    in_shards = home.record["cells"]
    assert home.check(*limits, "--slice-by", "phone") == 0
    assert "labels, the worst first:" in capsys.readouterr().out
    cells = home.record["cells"]
    assert cells == in_shards
    for cell in cells:
        assert {part["name"] for part in cell["labels"]} == set(NAMES)
        assert all(part["images"] == 160 and part["accuracy"] > 0.95 for part in cell["labels"])
        assert {check["rule"] for check in cell["checks"]} >= {"max_accuracy_drop", "max_flip_share"}
        assert [part["name"] for part in cell["slices"]] in (["a", "b"], ["b", "a"])
    record = str(home.folder / "check.json")
    assert main(["verdict", record]) == 0
    assert main(["compare", record, record]) == 0
    page = home.folder / "c.html"
    assert main(["report", record, "--html", str(page), "--markdown", "-", "--junit", str(home.folder / "j.xml")]) == 0
    assert "Labels, the worst first:" in capsys.readouterr().out
    assert "Labels, the worst first" in page.read_text()
    assert "max_flip_share holds for each of 3 labels" in (home.folder / "j.xml").read_text()
    assert home.check(*limits, "--unlabelled") == 0
    assert {part["accuracy"] for cell in home.record["cells"] for part in cell["labels"]} == {None}


def test_a_set_without_its_table_is_refused(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    """In one line that names the ways out."""
    capsys.readouterr()
    assert "expected a table with a column for each" in refusal(capsys, home.check(data="calibration"))
    code = main(["evaluate", str(home.variants / "int8.tflite"), "--data", str(home.folder / "test")])
    assert "expected classes alone" in refusal(capsys, code)
    assert "gives no classes" in refusal(capsys, home.convert("--max-flips", "1"))


SOUND = ModelSpec((0, 0), 0, (), outputs=(Output("o", "labels", (3,)),), input=Input("x", (2,)), label_names=NAMES)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("file_name,red,green,blue\na.png,1,0,1\nb.png,true,False,0.0\n", ""),
        ("file_name,labels\na.png,red|blue\nb.png,\n", ""),
        ("file_name,labels\na.png,red|bleu\nb.png,\n", "unknown label 'bleu'; did you mean 'blue'?"),
        ("file_name,red,green,bleu\na.png,1,0,1\nb.png,1,0,0\n", "unknown column 'blue'; did you mean 'bleu'?"),
        ("file_name,red,green,blue\na.png,1,0,2\nb.png,1,0,0\n", "a.png: blue is '2'; expected 0 or 1"),
        ("file_name,red,green,blue\na.png,1,0,\nb.png,1,0,0\n", "a.png: blue is ''; expected 0 or 1"),
        ("file_name,red,green,blue\na.png,1,0,1\n", "says nothing of 1 images, such as 'b.png'"),
    ],
)
def test_tables_of_labels(rows: str, reason: str, tmp_path: Path) -> None:
    """A column for each, or one that lists them; every image must be in it."""
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    (tmp_path / "labels.csv").write_text(rows)
    source = shards.open_source(tmp_path, ModelSpec((8, 8), 3, (), outputs=SOUND.outputs, label_names=NAMES))
    if not reason:
        read = labels.read(source, NAMES)
        assert read.of_names(["a.png"]).tolist() == [[1, 0, 1]]
        return
    with pytest.raises(SetupError) as refused:
        labels.read(source, NAMES)
    assert reason in str(refused.value)


def test_labels_in_an_npz(tmp_path: Path) -> None:
    """[N, labels] of 0 and 1."""
    flags = np.array([[1, 0, 1], [0, 0, 0]])
    for array, reason in (
        (flags, ""),
        (flags.astype(bool), ""),
        (flags * 2, "expected 0 or 1"),
        (flags[:, :2], r"expected labels of \[2, 3\], it is int64 \[2, 2\]"),
        (None, "there is none"),
    ):
        arrays: dict[str, Any] = {"inputs": np.zeros((2, 2))} | ({} if array is None else {"labels": array})
        np.savez(tmp_path / "set.npz", **arrays)
        source = shards.open_source(tmp_path / "set.npz", SOUND)
        if reason:
            with pytest.raises(SetupError, match=reason):
                labels.read(source, NAMES)
        else:
            assert labels.read(source, NAMES).of_names(["set/0", "set/1"]).tolist() == flags.tolist()


def judged(outputs: Any, reference: Any, truths: Any) -> Judged:
    cell = Cell("int8")
    output = LabelsOutput(tuple(f"l{n}" for n in range(reference.shape[1])), truths, reference, {cell: outputs})
    none = np.empty((len(reference), 0))
    answers = Predictions(np.full(len(reference), UNLABELLED), none, None, {cell: none}, labels_output=output)
    return predictions.judge(cell, answers, policy.load())


@pytest.mark.parametrize("count", [1, 4])
def test_any_label_decides(count: int) -> None:
    """One that changes fails all; a rare one leaves it open; NaN and numbers that are no probabilities fail."""
    truths = np.random.default_rng(0).integers(0, 2, (3000, count))
    reference = np.where(truths, 0.9, 0.1)
    assert judged(reference, reference, truths).verdict.outcome is Outcome.PASS
    spoilt = reference.copy()
    spoilt[:200, 0] = 1 - spoilt[:200, 0]
    result = judged(spoilt, reference, truths)
    assert result.verdict.outcome is Outcome.FAIL
    assert result.labels[0].name == "l0"
    assert any(reason.startswith("label l0: accuracy drop") for reason in result.verdict.reasons)
    rare = truths.copy()
    rare[:, 0] = np.arange(3000) < 5
    rare_reference = np.where(rare, 0.9, 0.1)
    result = judged(rare_reference, rare_reference, rare)
    assert result.verdict.outcome is Outcome.INCONCLUSIVE
    assert f"1 of {count} labels with too few images for max_class_drop: l0" in result.verdict.reasons
    for outputs, reason in ((reference * np.nan, "label l0: NaN"), (reference * 255, "label l0: outputs from")):
        result = judged(outputs, reference, truths)
        assert result.verdict.outcome is Outcome.FAIL
        assert result.verdict.reasons[0].startswith(reason)
    nearly_never = np.tile([0.001], (3000, count)) + np.arange(3000)[:, None] * 1e-7
    result = judged(np.zeros_like(nearly_never), nearly_never, truths)
    assert "constant" not in result.verdict.reasons[0]
