"""`harness convert --accelerator` and `--runtime`: variants just made, on what an app may run them with."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest
from keras import layers

from harness.artifacts import manifest
from harness.cli import main
from tests import store
from tests.conftest import refusal


@pytest.fixture
def grouped(tmp_path: Path) -> Path:
    """A Keras model with a 1x1 convolution in groups, which LiteRT 2.3's GPU gets wrong where its weights are int8."""
    keras.utils.set_random_seed(0)
    wide = keras.initializers.RandomNormal(stddev=3)
    x = entry = keras.Input((28, 28, 1))
    x = layers.Conv2D(32, 3, strides=2, activation="relu")(x)
    x = layers.Conv2D(32, 1, groups=4, activation="relu", name="grouped")(x)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(32, 3, activation="relu")(x))
    path = tmp_path / "grouped.keras"
    keras.Model(entry, layers.Dense(11, activation="softmax", kernel_initializer=wide)(x)).save(path)
    return path


@pytest.mark.usefixtures("swiftshader")
def test_a_variant_that_is_wrong_on_an_accelerator_is_said_when_it_is_made(
    grouped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 1, with the operation's name; the manifest says how many answers are alike. Without the accelerator 2."""
    words = ["convert", str(grouped), "--out", str(tmp_path / "out"), "--variants", "float32,dynamic_range"]
    assert main([*words, "--accelerator", "gpu"]) == 1
    shown = capsys.readouterr().out
    assert "dynamic_range@gpu: WRONG: its outputs differ from the CPU's by " in shown
    assert "first wrong: grouped_1/Relu (CONV_2D 1x1, strides 1x1, 4 groups, int8 weights)" in shown
    assert "float32@gpu: WRONG" not in shown
    for kind, variant in manifest.read(tmp_path / "out").items():
        here, there = variant.runtimes
        assert there.runtime == f"{here.runtime} on gpu (SwiftShader Device (Subzero))"
        assert (there.same_top1 == there.images) == (kind == "float32")
    monkeypatch.setenv("VK_ICD_FILENAMES", str(tmp_path / "none.json"))
    error = refusal(capsys, main([*words, "--accelerator", "gpu"]))
    assert "finds no Vulkan driver" in error
    assert "were not compared there" in error


def test_a_runtime_is_named_by_its_package(
    tiny_variants: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is installed once, into the cache; `inspect` runs a file there. A version that does not exist is refused."""
    folder = store.obtain("cache-of-runtimes", ["tflite-runtime"], lambda out: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    words = ["inspect", str(tiny_variants / "float32.tflite"), "--runtime"]
    assert main([*words, "tflite-runtime"]) == 0
    shown = capsys.readouterr().out
    assert "tflite-runtime 2.14.0: runs it, 4 of 4 random inputs answered as by ai-edge-litert 2.3.0" in shown
    error = refusal(capsys, main([*words, "tflite-runtime==0.1"]))
    assert "--runtime tflite-runtime: it cannot be installed (" in error
    assert "0.1" in error
