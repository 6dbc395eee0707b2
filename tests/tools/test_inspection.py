"""`harness inspect`: operations, versions, runtimes, what XNNPACK takes and what costs time."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from converters import calibration, quantize
from harness.cli import main
from harness.images import dataset
from harness.tools.inspection import Inspection, inspect
from tests.conftest import CALIBRATION, DIGITS, refusal
from tests.networks import tflite


def by_name(found: Inspection) -> dict[str, tuple[int, int | None]]:
    return {one.name: (one.count, one.delegated) for one in found.operations}


def test_int8_stays_in_the_delegate(tiny_variants: Path) -> None:
    """All but SOFTMAX, for which XNNPACK has no int8 kernel, and the 1x1 pooling that stands for a stride."""
    found = inspect(tiny_variants / "int8.tflite", accelerators=())
    operations = by_name(found)
    assert operations["SOFTMAX"] == (1, 0)
    pooled, _ = operations["MAX_POOL_2D"]
    left = {"SOFTMAX", "MAX_POOL_2D"}
    assert all(count == taken for name, (count, taken) in operations.items() if name not in left)
    assert found.parts == 1 + pooled
    assert f"leaves {1 + pooled} of" in found.slow[0]
    assert found.oldest_runtime == "1.15.0"
    (here,) = found.runs
    assert here.runtime.startswith("ai-edge-litert 2.3")
    assert here.problem is None
    assert (found.inputs[0].quantization.dtype, found.inputs[0].shape) == ("int8", (1, 28, 28, 1))


def test_stand_alone_relus_are_found(tiny_variants: Path) -> None:
    """What litert-quantizer alone writes: RELUs off the delegate, op versions of 1 that say too little."""
    float32 = (tiny_variants / "float32.tflite").read_bytes()
    ranges = calibration.measure(float32, dataset.take(dataset.load(CALIBRATION, DIGITS), np.arange(0, 220, 5)))
    path = tiny_variants.parent / "plain.tflite"
    path.write_bytes(quantize.plain(quantize.recipe("int8"), float32, ranges))
    found = inspect(path, accelerators=())
    count, taken = by_name(found)["RELU"]
    assert count > 0 == taken
    assert found.parts is not None
    assert found.parts > 1
    assert f"{count} RELU (int8)" in found.slow[0]
    assert found.oldest_runtime is not None
    assert "op versions are all 1" in found.oldest_runtime_note


def test_float_files_have_nothing_to_say(tiny_variants: Path) -> None:
    """float32 is taken whole, but for the 1x1 pooling that stands for a stride."""
    found = inspect(tiny_variants / "float32.tflite", accelerators=())
    assert all(one.delegated == one.count for one in found.operations if one.name != "MAX_POOL_2D")


def test_unfolded_batch_norms_are_named(tmp_path: Path) -> None:
    """A multiplication and an addition by constants, in int8, are said to cost time."""
    image = keras.Input((28, 28, 1))
    x = layers.Conv2D(4, 3, activation="relu")(image)
    x = layers.BatchNormalization()(x)
    x = layers.GlobalAveragePooling2D()(layers.Activation("tanh")(x))
    model = keras.Model(image, layers.Dense(11, activation="softmax")(x))
    model.layers[2].set_weights([np.full(4, value) for value in (0.5, 0.2, 0.1, 1.5)])
    model.save(tmp_path / "kept.keras")
    assert main(["convert", str(tmp_path / "kept.keras"), "--out", str(tmp_path), "--variants", "int8"]) == 0
    reasons = inspect(tmp_path / "int8.tflite", accelerators=()).slow
    assert any("1 MUL, 1 ADD with a constant" in reason for reason in reasons)


def test_the_table(tiny_variants: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One row an operation, one line a runtime, size and ends."""
    assert main(["inspect", str(tiny_variants / "int8.tflite")]) == 0
    shown = capsys.readouterr().out
    for text in ("in XNNPACK", "CONV_2D", "input: int8 [1, 28, 28, 1]", "ai-edge-litert 2.3.0: runs it", "KB, sha256"):
        assert text in shown


@pytest.mark.usefixtures("swiftshader", "openvino")
def test_what_accelerators_take_is_beside_the_cpu_s(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts where all are taken; the kinds that are left, by name and reason; why a machine has none, in a line."""
    path = tmp_path / "int64.tflite"
    path.write_bytes(tflite("int64"))
    assert main(["inspect", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "in XNNPACK    on gpu    on npu" in shown
    assert (
        "gpu (SwiftShader Device (Subzero)): takes 5 of 10 operations; it leaves ARG_MAX: Tensor type(INT64)" in shown
    )
    assert "not an NPU): takes all 10 operations" in shown
    path.write_bytes(tflite("flattened", batch=None))
    monkeypatch.setenv("VK_ICD_FILENAMES", str(tmp_path / "none.json"))
    gpu, npu = inspect(path).accelerators
    assert gpu.ran is None
    assert str(gpu.problem).startswith(
        "not on this machine: LiteRT finds no Vulkan driver (No adapters found); install"
    )
    assert npu.ran is not None
    assert npu.ran.left.endswith("use harness convert --batch 1")


def test_what_is_no_tflite_is_refused(
    tiny_model: Path, tiny_variants: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing file, a .keras file, a truncated one, a runtime that is none: told in one line."""
    short = tmp_path / "short.tflite"
    short.write_bytes((tiny_variants / "int8.tflite").read_bytes()[:2000])
    for path, says in ((tmp_path / "none", "No such file"), (tiny_model, "not a .tflite"), (short, "damaged")):
        assert main(["inspect", str(path)]) == 2
        error = capsys.readouterr().err
        assert says in error
        assert error.count("\n") == 1
    for name, says in (("/no/such/python", "no such program"), ("tflite_runtime", "did you mean 'tflite-runtime'?")):
        code = main(["inspect", str(tiny_variants / "float32.tflite"), "--runtime", name])
        assert says in refusal(capsys, code)
