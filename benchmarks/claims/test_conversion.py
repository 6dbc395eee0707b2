"""What converting a pre-activation network buys, against TFLiteConverter's own files of the same model.

Both sides in one run, in turn, on one thread, with the same calibration images; each figure is ours / plain.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.claims.conftest import Claim
from benchmarks.claims.paired import has_amx
from benchmarks.conftest import MODEL, ROOT, VARIANTS
from converters import calibration
from converters.convert import CALIBRATION_SIZE
from harness.artifacts.manifest import KINDS, Variant
from harness.artifacts.outputs import FloatArray, dequantize
from harness.check import references
from harness.core import cores
from harness.images import dataset
from harness.images.dataset import Dataset
from harness.output import terminal
from harness.run import worker
from models.config import DIGITS

CALIBRATION = ROOT / "data" / "calibration"
ROUNDS, BLOCK = 15, 20
FURTHER_PER_CLASS = 455  # 5,005 images
SEED = 4711  # not that of any committed set

PLAIN = """
import sys, keras, numpy as np, tensorflow as tf
kind, model, images, out = sys.argv[1:]
converter = tf.lite.TFLiteConverter.from_keras_model(keras.saving.load_model(model, compile=False))
if kind != "float32":
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
if kind == "int8":
    converter.representative_dataset = lambda: ([image[None]] for image in np.load(images))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
open(out, "wb").write(converter.convert())
"""


def measured(command: list[str]) -> tuple[float, int]:
    """Seconds of a command, and the peak resident memory of its largest process, in bytes."""
    begin = time.perf_counter()
    watched = [sys.executable, "-c", WATCH, *command]
    done = subprocess.run(watched, capture_output=True, text=True, cwd=ROOT)
    seconds = time.perf_counter() - begin
    assert done.returncode == 0, done.stderr[-2000:]
    return seconds, int(done.stdout.splitlines()[-1])


WATCH = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def chosen() -> Dataset:
    """The calibration images that both sides use."""
    return calibration.choose(dataset.load(CALIBRATION, DIGITS), CALIBRATION_SIZE)


@pytest.fixture(scope="module")
def plain(chosen: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, tuple[float, int]]]:
    """TFLiteConverter's three files of the model as trained, and what each cost."""
    folder = tmp_path_factory.mktemp("plain")
    np.save(folder / "images.npy", chosen.inputs())
    costs = {}
    for kind in KINDS:
        out = folder / f"{kind}.tflite"
        costs[kind] = measured([sys.executable, "-c", PLAIN, kind, str(MODEL), str(folder / "images.npy"), str(out)])
    return folder, costs


@pytest.fixture(scope="module")
def further(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """5,005 images rendered as data/calibration's are, of another seed."""
    folder = tmp_path_factory.mktemp("further") / "images"
    count = str(FURTHER_PER_CLASS)
    command = [sys.executable, "-m", "data.make", "calibration", "--per-class", count, "--out", str(folder)]
    subprocess.run([*command, "--seed", str(SEED)], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return dataset.load(folder, DIGITS)


def latency_ratio(ours: bytes, theirs: bytes, images: Any) -> tuple[float, float, float]:
    """Median of the quotients of paired blocks' medians, and both medians in seconds."""
    models = [worker.load(content, 1) for content in (ours, theirs)]
    prepared = [model.quantize(images) for model in models]
    for model, own in zip(models, prepared, strict=True):
        worker.measure(model, own, 0, 2 * BLOCK)
    blocks: list[list[float]] = [[], []]
    for turn in range(ROUNDS):
        for which in (0, 1) if turn % 2 else (1, 0):
            times = worker.measure(models[which], prepared[which], turn * BLOCK, BLOCK)
            blocks[which].append(float(np.median(times)))
    return median(a / b for a, b in zip(*blocks, strict=True)), median(blocks[0]), median(blocks[1])


@pytest.mark.parametrize(
    ("kind", "against", "target"),
    [("int8", "int8", 0.68 if has_amx() else 0.60), ("int8", "float32", 0.45), ("float32", "float32", 0.93)],
)
def test_latency(
    kind: str,
    against: str,
    target: float,
    variants: dict[str, Variant],
    plain: tuple[Path, Any],
    data: Dataset,
    benchmark: BenchmarkFixture,
    claim: Claim,
) -> None:
    """One inference of one image, ours beside TFLiteConverter's."""
    ours = variants[kind].path(VARIANTS).read_bytes()
    theirs = (plain[0] / f"{against}.tflite").read_bytes()
    arguments = (ours, theirs, data.inputs()[::10])
    quotient, mine, other = benchmark.pedantic(latency_ratio, args=arguments, rounds=1)
    claim(f"latency: {kind} / TFLiteConverter's {against}", quotient, at_most=target, ours_s=mine, plain_s=other)


def answers(content: bytes, images: Dataset) -> FloatArray:
    """Probabilities [N, classes]."""
    task = {"name": "answers", "parallel": cores.usable()}
    found = worker.answers({"file": content}, images.inputs(), task)
    return dequantize(found["outputs"], float(found["scale"]), int(found["zero_point"]))


def test_faithfulness(
    variants: dict[str, Variant],
    plain: tuple[Path, Any],
    data: Dataset,
    further: Dataset,
    tmp_path: Path,
    benchmark: BenchmarkFixture,
    claim: Claim,
) -> None:
    """int8 flips at most as many of Keras's answers as plain int8 does, and moves no probability as far."""
    contents = {
        "ours": variants["int8"].path(VARIANTS).read_bytes(),
        "plain": (plain[0] / "int8.tflite").read_bytes(),
    }

    def compare() -> dict[str, tuple[int, float]]:
        flips, largest = dict.fromkeys(contents, 0), dict.fromkeys(contents, 0.0)
        for images in (data, further):
            expected = references.obtain(MODEL, images, tmp_path, terminal.step).outputs
            for side, content in contents.items():
                received = answers(content, images)
                flips[side] += int((received.argmax(axis=1) != expected.argmax(axis=1)).sum())
                largest[side] = max(largest[side], float(np.abs(received - expected).max()))
        return {side: (flips[side], largest[side]) for side in contents}

    found = benchmark.pedantic(compare, rounds=1)
    (flips, largest), (plain_flips, plain_largest) = found["ours"], found["plain"]
    benchmark.extra_info["images"] = len(data) + len(further)
    claim("predictions: int8's flips, TFLiteConverter's int8 as the target", flips, at_most=plain_flips)
    claim("predictions: int8's largest probability difference, likewise", largest, at_most=plain_largest)


def test_cost(
    plain: tuple[Path, dict[str, tuple[float, int]]], tmp_path: Path, benchmark: BenchmarkFixture, claim: Claim
) -> None:
    """The three default variants in 15 % of the time of three plain conversions, without more memory."""
    command = [sys.executable, "-m", "harness", "convert", str(MODEL), "--out", str(tmp_path)]
    seconds, memory = benchmark.pedantic(measured, args=(command,), rounds=1)
    plain_seconds = sum(cost for cost, _ in plain[1].values())
    plain_memory = max(peak for _, peak in plain[1].values())
    benchmark.extra_info |= {"seconds": seconds, "plain_seconds": plain_seconds, "peak_bytes": memory}
    claim("conversion: time of three variants / TFLiteConverter's", seconds / plain_seconds, at_most=0.15)
    claim("conversion: peak memory / TFLiteConverter's", memory / plain_memory, at_most=1.0)
