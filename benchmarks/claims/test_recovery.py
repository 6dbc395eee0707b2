"""What `harness convert --recover` brings back of networks that int8 spoils, beside others' int8 of the same models.

Each is trained once on benchmarks.shapes and kept in .pytest_cache. Flips are counted against Keras, on 4,000 images
that nothing was made from. Time is the processor's, so that other work does not count.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import fragile, shapes
from benchmarks.claims.conftest import Claim
from benchmarks.claims.test_conversion import PLAIN, answers
from benchmarks.conftest import ROOT
from converters import calibration, float32, keras_model
from converters.convert import CALIBRATION_SIZE
from harness.artifacts import manifest
from harness.artifacts.manifest import RECOVERED
from harness.images import dataset, spec
from harness.images.dataset import Dataset
from tests import store

MAX_MINUTES = 30  # of one core: 15 on two
STEPS = 1200  # of training
QUANTIZER = """
import sys, numpy as np
from litert_quantizer import quantizer, recipe
model, images, out = sys.argv[1:]
made = quantizer.Quantizer(model, recipe.static_wi8_ai8())
name = sys.stdin.readline().strip()
data = {"serving_default": [{name: image[None]} for image in np.load(images)]}
made.quantize(made.calibrate(data)).export_model(out)
"""


def processor_minutes(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode in (0, 1, 3), done.stderr[-2000:]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 60


def others(model: Path, chosen: Dataset, folder: Path) -> dict[str, bytes]:
    """TFLiteConverter's int8, and litert-quantizer's of a float32 file, calibrated with the same images."""
    np.save(folder / "images.npy", chosen.inputs())
    images = str(folder / "images.npy")
    subprocess.run(
        [sys.executable, "-c", PLAIN, "int8", str(model), images, str(folder / "plain.tflite")],
        check=True, cwd=ROOT, capture_output=True,
    )  # fmt: skip
    (folder / "float32.tflite").write_bytes(float32.convert(model, chosen.spec).content)
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(folder / "float32.tflite")).get_signature_runner()
    subprocess.run(
        [sys.executable, "-c", QUANTIZER, str(folder / "float32.tflite"), images, str(folder / "quantizer.tflite")],
        check=True, cwd=ROOT, capture_output=True, text=True, input=f"{next(iter(runner.get_input_details()))}\n",
    )  # fmt: skip
    return {name: (folder / f"{name}.tflite").read_bytes() for name in ("plain", "quantizer")}


@pytest.mark.parametrize("name", fragile.NAMES)
def test_recovery(name: str, tmp_path: Path, benchmark: BenchmarkFixture, claim: Claim) -> None:
    """At most a quarter of int8's flips, fewer than any other's, in fifteen minutes on two cores."""
    parts = (Path(fragile.__file__), Path(shapes.__file__), name)
    folder = store.obtain(f"fragile-{name}", parts, lambda out: fragile.main(name, out))
    model, images = folder / f"{name}.keras", folder / "images"
    command = [sys.executable, "-m", "harness", "convert", str(model), "--out", str(tmp_path / "out")]
    command += ["--calibration", str(images / "calibration"), "--data", str(images / "test")]
    command += ["--recover", str(images / "training"), "--training-steps", str(STEPS)]
    minutes = benchmark.pedantic(processor_minutes, args=(command,), rounds=1)
    variants = manifest.read(tmp_path / "out")
    takes = spec.combine(keras_model.signature(model), spec.load_config(model), model)
    test, whole = (dataset.load(images / part, takes) for part in ("test", "calibration"))
    contents = {kind: variants[kind].path(tmp_path / "out").read_bytes() for kind in ("int8", RECOVERED)}
    contents |= others(model, calibration.choose(whole, CALIBRATION_SIZE), tmp_path)
    expected = keras_model.predict(model, test).argmax(axis=1)
    flips = {side: int((answers(content, test).argmax(axis=1) != expected).sum()) for side, content in contents.items()}
    benchmark.extra_info |= {"accuracy": float((expected == test.labels).mean()), "images": len(test), **flips}
    recovery = variants[RECOVERED].recovery
    assert recovery is not None
    before, after = flips["int8"], flips[RECOVERED]
    claim(
        f"recovery: {name}'s flips of {len(test)} / int8's, by {recovery.recipe}", after / before, at_most=0.25, **flips
    )
    claim(
        f"recovery: {name}'s flips / the fewest of others'", after / min(flips["plain"], flips["quantizer"]), at_most=1
    )
    claim(f"recovery: {name}'s processor minutes", minutes, at_most=MAX_MINUTES)
