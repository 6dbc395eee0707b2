"""`harness convert`: what the variants are, what the manifest says of them, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from converters import calibration, keras_model
from harness.artifacts import manifest
from harness.cli import main
from harness.images import dataset
from tests.conftest import CALIBRATION, DIGITS, FLOAT32_DIFFERENCE, ROOT, stored_model


def interpreter(path: Path) -> Interpreter:
    loaded = Interpreter(model_path=str(path))
    loaded.allocate_tensors()
    return loaded


@pytest.mark.parametrize(("options", "batch"), [((), 1), (("--batch", "any"), -1)])
def test_a_file_takes_one_image_or_any_number(options: tuple[str, ...], batch: int, tmp_path: Path) -> None:
    """One by default, so that no operation computes the shape of a Flatten, which accelerators refuse."""
    import keras

    layers = [keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(11, activation="softmax")]
    model = tmp_path / "flat.keras"
    keras.Sequential([keras.Input((28, 28, 1)), *layers]).save(model)
    arguments = ["convert", str(model), "--out", str(tmp_path), "--calibration", str(CALIBRATION)]
    assert main([*arguments, *options]) == 0
    for variant in manifest.read(tmp_path).values():
        assert interpreter(variant.path(tmp_path)).get_input_details()[0]["shape_signature"].tolist() == [
            batch,
            28,
            28,
            1,
        ]
        assert ("SHAPE" in variant.op_versions) == (batch < 0)


def test_int8_is_integer_throughout(tiny_variants: Path) -> None:
    """Weights, activations, input and output: no float tensor is left in int8.tflite."""
    loaded = interpreter(tiny_variants / "int8.tflite")
    assert loaded.get_input_details()[0]["dtype"] is np.int8
    assert loaded.get_output_details()[0]["dtype"] is np.int8
    kinds = {tensor["dtype"] for tensor in loaded.get_tensor_details()}
    assert np.float32 not in kinds
    names = {operation["op_name"] for operation in loaded._get_ops_details()}
    assert not {"DEQUANTIZE", "RELU", "MUL"} & names


def test_dynamic_range_has_int8_weights_and_float_ends(tiny_variants: Path) -> None:
    """A quarter of float32's size, float in and out."""
    loaded = interpreter(tiny_variants / "dynamic_range.tflite")
    assert loaded.get_input_details()[0]["dtype"] is np.float32
    assert loaded.get_output_details()[0]["dtype"] is np.float32
    assert np.int8 in {tensor["dtype"] for tensor in loaded.get_tensor_details()}
    sizes = {kind: (tiny_variants / f"{kind}.tflite").stat().st_size for kind in manifest.KINDS}
    assert sizes["dynamic_range"] < 0.4 * sizes["float32"]
    assert sizes["int8"] < 0.4 * sizes["float32"]


def test_the_manifest_describes_the_files(tiny_model: Path, tiny_variants: Path) -> None:
    """Hashes, sizes, source, calibration set, input and output quantization, op versions, runtime."""
    variants = manifest.read(tiny_variants)
    assert set(variants) == set(manifest.KINDS)
    source = hashlib.sha256(tiny_model.read_bytes()).hexdigest()
    for kind, variant in variants.items():
        content = (tiny_variants / variant.file).read_bytes()
        assert (variant.sha256, variant.size_bytes) == (hashlib.sha256(content).hexdigest(), len(content))
        assert variant.source_sha256 == source
        assert variant.op_versions["CONV_2D"] >= 1
        (here,) = variant.runtimes
        assert here.runtime.startswith("ai-edge-litert 2.3")
        assert (here.same_top1, here.problem) == (here.images, None)
        (entry,), (answer,) = (
            interpreter(tiny_variants / variant.file).get_input_details(),
            interpreter(tiny_variants / variant.file).get_output_details(),
        )
        assert (variant.input.scale, variant.input.zero_point) == entry["quantization"]
        assert (variant.output.scale, variant.output.zero_point) == answer["quantization"]
        assert (variant.calibration_size == 220) == (kind == "int8")
        assert (variant.batch_norms_folded, variant.batch_norms_kept) == (19, {})
    assert variants["int8"].calibration_sha256 == calibration.choose(dataset.load(CALIBRATION, DIGITS), 220).sha256


def test_float32_answers_like_keras(tiny_model: Path, tiny_variants: Path) -> None:
    """On real images no output moves by more than the default policy allows."""
    import keras

    images = dataset.load(CALIBRATION, DIGITS).inputs()[::11]
    expected = keras.saving.load_model(tiny_model, compile=False).predict(images, verbose=0)
    loaded = interpreter(tiny_variants / "float32.tflite")
    for image, answer in zip(images, expected, strict=True):
        loaded.set_tensor(loaded.get_input_details()[0]["index"], image[None])
        loaded.invoke()
        np.testing.assert_allclose(
            loaded.get_tensor(loaded.get_output_details()[0]["index"])[0], answer, atol=FLOAT32_DIFFERENCE
        )


@pytest.mark.usefixtures("real_keras_process")
def test_the_same_model_gives_the_same_bytes(tiny_model: Path, tiny_variants: Path, tmp_path: Path) -> None:
    """Converted again, each variant is byte-identical."""
    assert main(["convert", str(tiny_model), "--out", str(tmp_path)]) == 0
    for kind in manifest.KINDS:
        assert (tmp_path / f"{kind}.tflite").read_bytes() == (tiny_variants / f"{kind}.tflite").read_bytes()


def test_calibration_images_are_stratified_and_fixed() -> None:
    """44 of 220 images are 4 of each class, the same ones each time; asked for more than there are, all."""
    data = dataset.load(CALIBRATION, DIGITS)
    chosen = calibration.choose(data, 44)
    assert np.bincount(chosen.labels).tolist() == [4] * 11
    assert chosen.sha256 == calibration.choose(data, 44).sha256
    assert set(calibration.choose(data, 10_000).names) == set(data.names)


def test_ranges_are_the_extremes_over_all_batches(tiny_variants: Path) -> None:
    """Calibrating on 30 images is the union of calibrating on its parts."""
    data = dataset.load(CALIBRATION, DIGITS)
    content = (tiny_variants / "float32.tflite").read_bytes()
    whole = calibration.measure(content, dataset.take(data, np.arange(30)))
    parts = [calibration.measure(content, dataset.take(data, np.arange(*part))) for part in ((0, 7), (7, 30))]
    assert len(whole) > 30
    for name, (low, high) in whole.items():
        np.testing.assert_array_equal(low, np.minimum(*(part[name][0] for part in parts)))
        np.testing.assert_array_equal(high, np.maximum(*(part[name][1] for part in parts)))


def test_one_variant_joins_those_that_are_there(tiny_model: Path, tiny_variants: Path, tmp_path: Path) -> None:
    """Converting int8 alone keeps the manifest's other entries."""
    out = Path(shutil.copytree(tiny_variants, tmp_path / "out"))
    assert main(["convert", str(tiny_model), "--out", str(out), "--variants", "int8", "--calibration-size", "44"]) == 0
    variants = manifest.read(out)
    assert set(variants) == set(manifest.KINDS)
    assert variants["int8"].calibration_size == 44


@pytest.mark.usefixtures("real_keras_process")
def test_the_converter_is_silent(tiny_model: Path, tmp_path: Path) -> None:
    """Piped, `harness convert` prints a line a variant and one of what they take, and nothing else on either stream."""
    done = subprocess.run(
        [sys.executable, "-m", "harness", "convert", str(tiny_model), "--out", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    *variants, takes = done.stdout.splitlines()
    assert [Path(line.split()[0]).name for line in variants] == [f"{k}.tflite" for k in manifest.KINDS]
    assert takes == "takes 28x28 grey images, pixels 0 to 1; 0-10"


def refusal(capsys: pytest.CaptureFixture[str], out: Path, *arguments: str) -> str:
    """The one line of a refused conversion; exit code 2 and no file left."""
    code = main(["convert", *arguments, "--out", str(out)])
    error = capsys.readouterr().err
    assert code == 2
    assert error.count("\n") == 1
    assert not list(out.glob("*")) if out.is_dir() else True
    return error


def test_what_is_no_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing file, a text file, an archive of something else."""
    out = tmp_path / "out"
    text, archive = tmp_path / "text.keras", tmp_path / "archive.keras"
    text.write_text("weights")
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("hello.txt", "hello")
    assert "No such file" in refusal(capsys, out, str(tmp_path / "none.keras"))
    assert "not a .keras file" in refusal(capsys, out, str(text))
    assert "is an archive without config.json" in refusal(capsys, out, str(archive))


def test_a_lambda_layer_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Code inside a model file is not run."""
    import keras

    image = keras.Input((28, 28, 1))
    x = keras.layers.Lambda(lambda pixels: 1 - pixels)(image)
    x = keras.layers.Dense(11, activation="softmax")(keras.layers.Flatten()(x))
    keras.Model(image, x).save(tmp_path / "lambda.keras")
    assert "Lambda" in refusal(capsys, tmp_path / "out", str(tmp_path / "lambda.keras"))


def test_other_refusals(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown variant, a shape that does not fit, no calibration images, none asked for, an unwritable folder."""
    out = tmp_path / "out"
    assert "int4" in refusal(capsys, out, str(tiny_model), "--variants", "int4")
    assert "--calibration-size" in refusal(capsys, out, str(tiny_model), "--calibration-size", "0")
    assert "there is none" in refusal(capsys, out, str(tiny_model), "--calibration", str(tmp_path / "none"))
    ten = stored_model("ten", classes=10)
    assert "says class 10; the classes are 0-9" in refusal(capsys, out, str(ten))
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refusal(capsys, tmp_path / "file" / "out", str(tiny_model))


@pytest.mark.usefixtures("real_keras_process")
def test_a_killed_conversion_leaves_nothing_half_written(tiny_model: Path, tiny_variants: Path, tmp_path: Path) -> None:
    """Whenever it is killed, what is there under a final name is whole, and the manifest names only such files."""
    command = [sys.executable, "-m", "harness", "convert", str(tiny_model), "--out", str(tmp_path)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 300
    while not list(tmp_path.iterdir()):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.0005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for path in tmp_path.glob("*.tflite"):
        assert path.read_bytes() == (tiny_variants / path.name).read_bytes()
    assert not (tmp_path / "manifest.json").exists() or json.loads((tmp_path / "manifest.json").read_text())


def test_a_references_batch_norms_are_the_models_own(tmp_path: Path) -> None:
    """Of maps, which run as one kernel, without scale, of vectors, and of another axis: as Keras gives them."""
    import keras

    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    layers = keras.layers
    entry = keras.Input((28, 28, 1))
    maps = layers.BatchNormalization(epsilon=1e-6)(layers.Conv2D(4, 3, activation="relu")(entry))
    maps = layers.BatchNormalization(axis=1)(layers.BatchNormalization(scale=False)(maps))
    vectors = layers.BatchNormalization()(layers.GlobalAveragePooling2D()(maps))
    model = keras.Model(entry, layers.Dense(11, activation="softmax")(vectors))
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 2, weights.shape) for weights in layer.get_weights()])
    model.save(tmp_path / "model.keras")
    data = dataset.build(rng.integers(0, 256, (5, 28, 28, 1), np.uint8), [0] * 5, list("abcde"), DIGITS)
    composed = keras.layers.BatchNormalization.call
    outputs = keras_model.predict(tmp_path / "model.keras", data)
    np.testing.assert_allclose(outputs, model(data.inputs(), training=False), atol=1e-6)
    assert keras.layers.BatchNormalization.call is composed
