"""Models that take no pictures: sensors, waves, stacks of maps; from arrays to a verdict, by the same verbs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from harness.artifacts import manifest
from harness.cli import main
from tests.conftest import FEW_IMAGES_POLICY, refusal

WIDE = keras.initializers.RandomNormal(stddev=0.7, seed=1)


def sensors() -> Any:
    """[N, 20] to three classes."""
    values = keras.Input((20,), name="values")
    x = layers.Dense(8, activation="relu", kernel_initializer=WIDE)(values)
    return keras.Model(values, layers.Dense(3, activation="softmax", kernel_initializer=WIDE)(x))


def waves() -> Any:
    """[N, 32, 2], a shape that a grey image may have, to two classes by one number."""
    return keras.Sequential(
        [
            keras.Input((32, 2), name="wave"),
            layers.Conv1D(6, 5, activation="relu", kernel_initializer=WIDE),
            layers.GlobalAveragePooling1D(),
            layers.Dense(1, activation="sigmoid", kernel_initializer=WIDE),
        ]
    )


def maps() -> Any:
    """[N, 6, 6, 5] to numbers, by inputs and outputs of names."""
    stack = keras.Input((6, 6, 5), name="stack")
    x = layers.Conv2D(4, 3, activation="relu", kernel_initializer=WIDE)(stack)
    model = keras.Model({"stack": stack}, {"field": layers.Conv2D(2, 1, name="field", kernel_initializer=WIDE)(x)})
    model.compile(loss="mse")
    return model


def arrays(model: Any, count: int, seed: int) -> dict[str, Any]:
    """Inputs, and the classes that the model gives them."""
    shape = tuple(model.inputs[0].shape)[1:]
    inputs = np.random.default_rng(seed).normal(0, 2, (count, *shape)).astype(np.float32)
    if len(shape) == 3:
        return {"stack": inputs}
    outputs = np.asarray(model(inputs))
    return {"inputs": inputs, "labels": outputs.argmax(axis=1) if outputs.shape[1] > 1 else (outputs[:, 0] > 0.5) * 1}


@pytest.mark.parametrize("build", [sensors, waves, maps])
def test_from_arrays_to_a_verdict(build: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Converted with calibration, checked in one piece and in shards, judged again, evaluated, shown, and packed."""
    model = build()
    model.save(tmp_path / "m.keras")
    calibration = arrays(model, 100, 1)
    if "labels" in calibration:
        calibration["labels"] = np.arange(100) % max(2, model.outputs[0].shape[-1])  # of every class
    np.savez(tmp_path / "calibration.npz", **calibration)
    np.savez(tmp_path / "test.npz", **arrays(model, 110, 2))
    sets = ["--calibration", str(tmp_path / "calibration.npz"), "--data", str(tmp_path / "test.npz")]
    out = ["--out", str(tmp_path / "v"), "--variants", "float32,int8", "--metadata"]
    assert main(["convert", str(tmp_path / "m.keras"), *out, *sets]) == 0
    takes = manifest.read(tmp_path / "v")["int8"].spec
    assert takes.input
    assert takes.shape == tuple(model.inputs[0].shape)[1:]
    shared = ["--models", str(tmp_path / "v"), "--reference", str(tmp_path / "m.keras"), "--data", sets[-1]]
    policy = tmp_path / "policy.toml"
    of_tensors = "max_off_share = 0.2\nmax_mean_tensor_error = 0.15\nmin_mean_cosine = 0.9\nmax_flip_share"
    policy.write_text(FEW_IMAGES_POLICY.read_text().replace("max_flip_share", of_tensors))
    check = ["check", *shared, "--policy", str(policy), "--no-latency"]
    assert main([*check, "--json", str(tmp_path / "c.json")]) == 0
    cells = json.loads((tmp_path / "c.json").read_text())["cells"]
    assert main([*check, "--json", str(tmp_path / "s.json"), "--shards", "3"]) == 0
    assert json.loads((tmp_path / "s.json").read_text())["cells"] == cells
    assert main(["verdict", str(tmp_path / "c.json")]) == 0
    if build is sensors:
        return
    assert main(["report", str(tmp_path / "c.json"), "--html", str(tmp_path / "c.html"), "--flips"]) == 0
    assert main(["device", "pack", *shared, "--policy", str(policy), str(tmp_path / "p.zip")]) == 0
    packed = ["check", "--packed", str(tmp_path / "p.zip"), "--no-latency", "--json", str(tmp_path / "p.json")]
    assert main(packed) == 0
    capsys.readouterr()
    if build is maps:
        assert [tensor["name"] for tensor in cells[0]["tensors"]] == ["field"]
        return
    assert cells[0]["parity"]["accuracy"] == 1
    page = ["--html", str(tmp_path / "e.html")]
    assert main(["evaluate", str(tmp_path / "v" / "int8.tflite"), "--data", sets[-1], *page]) == 0
    capsys.readouterr()
    np.savez(tmp_path / "unlabelled.npz", inputs=np.load(sets[-1])["inputs"])
    code = main(["evaluate", str(tmp_path / "v" / "int8.tflite"), "--data", str(tmp_path / "unlabelled.npz")])
    assert "has no labels to evaluate by" in refusal(capsys, code)
    golden = ["app", "golden", "int8", *shared, "--out", str(tmp_path / "g")]
    assert "expected one of images, as golden bundles are" in refusal(capsys, main(golden))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: keras.Model([a := keras.Input((4,)), b := keras.Input((4,))], layers.Add()([a, b])), "has 2 inputs"),
        (
            lambda: keras.Sequential([keras.Input((None, 40)), layers.GlobalAveragePooling1D(), layers.Dense(2)]),
            "takes [N, N, 40]; expected",
        ),
    ],
)
def test_what_is_not_taken_is_said(model: Any, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Several inputs, and sizes that are not known."""
    model().save(tmp_path / "m.keras")
    code = main(["convert", str(tmp_path / "m.keras"), "--out", str(tmp_path / "v"), "--variants", "float32"])
    assert reason in refusal(capsys, code)
