"""The families of keras.applications from a Keras file to a verdict: what each kind of variant keeps of their answers.

Trained here for a minute from random weights, as untrained ones amplify any rounding. docs/families.md keeps the rows.
"""

from __future__ import annotations

import colorsys
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.claims.conftest import Claim
from benchmarks.conftest import ROOT
from converters import integers
from converters.convert import Images, convert
from harness import cli
from harness.artifacts import manifest
from harness.artifacts.outputs import FloatArray
from harness.core.errors import SetupError
from harness.records import record
from harness.records.record import CellRecord

DOCUMENT = ROOT / "docs" / "families.md"
SIZE, CLASSES, CALIBRATION, TESTED = 32, 10, 200, 1000
TRAINED, BATCH, EPOCHS = 960, 32, 10
STEPS = TRAINED // BATCH * EPOCHS
SCALED = ("MobileNet", "MobileNetV2", "ResNet50V2", "DenseNet121", "NASNetMobile")  # take pixels of -1 to 1
KINDS = ("float32", "dynamic_range", "float16", "int8", "int16x8")
FAMILIES: dict[str, dict[str, Any]] = {
    "MobileNet": {"alpha": 0.5},
    "MobileNetV2": {"alpha": 0.5},
    "MobileNetV3Small": {},
    "EfficientNetB0": {},
    "EfficientNetV2B0": {},
    "ResNet50V2": {},
    "DenseNet121": {},
    "NASNetMobile": {},
    "ConvNeXtTiny": {},
}
HEADING = f"""# Families of keras.applications

Small classifiers of {SIZE}x{SIZE} made-up colour images of {CLASSES} classes (hue and coarseness), trained for
{STEPS} steps from random weights; converted, and their logits judged
[by tensors](verdict.md#outputs-that-are-no-classes) on {TESTED} further images, by `tox -e claims -- -k families`.

A cell has the verdict by the default policy, the mean error of an image in units of the reference's spread, and how
many images' largest logit is another class than Keras's. INCONCLUSIVE: so few images do not prove the narrow limits of
float32 or float16. A training loss of 1 or more: training failed, and the network amplifies whatever rounding there is.

| family | training loss | {" | ".join(KINDS)} | float32's largest difference, of the spread | in int8 |
|---|{"---|" * (len(KINDS) + 3)}
"""


def images(folder: Path, count: int, seed: int) -> Path:
    """Made-up photographs, <class>_<n>.png: coloured noise, the class is one of five hues, fine or coarse."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    for number in range(count):
        label = number % CLASSES
        cells = int(rng.choice([12, 16, 24] if label % 2 else [2, 3]))
        tint = colorsys.hsv_to_rgb((label // 2 + rng.uniform(-0.25, 0.25)) / (CLASSES / 2), rng.uniform(0.3, 1), 0.8)
        noise = rng.normal(255 * np.array(tint), rng.uniform(10, 30), (cells, cells, 3))
        picture = Image.fromarray(noise.clip(0, 255).astype(np.uint8)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        picture.save(folder / f"{label}_{number}.png")
    return folder


def build(family: str, path: Path, pictures: Path) -> float:
    """Train a classifier of a family and save it, its config beside it; the loss of its last steps."""
    import keras

    keras.utils.set_random_seed(0)
    shape = (SIZE, SIZE, 3)
    settings = {"input_shape": shape, "weights": None, "classes": CLASSES, "classifier_activation": None}
    model = getattr(keras.applications, family)(**settings, **FAMILIES[family])
    files = sorted(pictures.iterdir())
    pixels = np.stack([np.asarray(Image.open(file), np.float32) for file in files])
    labels = np.array([int(file.name.split("_")[0]) for file in files])
    scaled = family in SCALED
    inputs = pixels / 127.5 - 1 if scaled else pixels
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.9
    for rate in (5e-4, 1e-4):  # the second half by the statistics that will be used
        model.compile(keras.optimizers.Adam(rate), loss)
        history = model.fit(inputs, labels, BATCH, epochs=EPOCHS // 2, verbose=0)
        for norm in norms:
            norm.trainable = False
    for norm in norms:
        norm.trainable = True
    model.save(path)
    pixel_range = [-1, 1] if scaled else [0, 255]
    path.with_suffix(".toml").write_text(f'output = "tensor"\npixel_range = {pixel_range}\n')
    return float(history.history["loss"][-1])


def cell_text(judged: CellRecord, outputs: FloatArray, reference: FloatArray) -> str:
    """One cell of the table."""
    (tensor,) = judged.tensors
    flips = int((outputs.argmax(axis=1) != reference.argmax(axis=1)).sum())
    return f"{judged.verdict.outcome}, {tensor.mean_error:.1e}, {flips}"


def measure(family: str, folder: Path) -> tuple[float, list[str]]:
    """float32's largest difference from Keras, of the reference's spread, and the cells of a family's row."""
    calibration, tested = images(folder / "calibration", CALIBRATION, 1), images(folder / "test", TESTED, 2)
    source, out, result = folder / "model.keras", folder / "tflite", folder / "check.json"
    loss = build(family, source, images(folder / "trained", TRAINED, 0))
    made, refused = list(KINDS), dict[str, str]()
    for _ in KINDS:  # a kind that is refused does not cost the others
        try:
            convert(source, out, Images(calibration), kinds=made)
            break
        except SetupError as problem:
            refused |= {kind: f"refused: {problem}" for kind in made if f"{kind}:" in str(problem)}
            made = [kind for kind in made if kind not in refused]
    asked = ["--models", str(out), "--reference", str(source), "--data", str(tested), "--json", str(result)]
    assert cli.main(["check", *asked, "--no-latency"]) in (0, 1, 3)
    checked = record.read(result)
    (answered,) = checked.arrays.predictions().tensors
    cells = {cell.variant: cell_text(cell, answered.cells[cell.cell], answered.reference) for cell in checked.cells}
    error = next(
        cell.tensors[0].max_difference / cell.tensors[0].spread for cell in checked.cells if cell.variant == "float32"
    )
    left = integers.left_float((out / manifest.read(out)["int8"].file).read_bytes()) if "int8" in made else ""
    row = [f"{loss:.2f}", *({**cells, **refused}[kind] for kind in KINDS), f"{error:.1e}", left or "all integers"]
    return error, row


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_judged(family: str, tmp_path: Path, benchmark: BenchmarkFixture, claim: Claim) -> None:
    """The float32 file differs by at most 1e-4 of the spread from Keras in any number."""
    error, cells = benchmark.pedantic(measure, args=(family, tmp_path), rounds=1)
    claim(f"{family}'s float32 beside Keras, largest difference of a logit, of their spread", error, at_most=1e-4)
    rows = dict(re.findall(r"(?m)^\| (\w+) \| (.*) \|$", DOCUMENT.read_text())) if DOCUMENT.exists() else {}
    rows[family] = " | ".join(cells)
    DOCUMENT.write_text(HEADING + "".join(f"| {name} | {rows[name]} |\n" for name in FAMILIES if name in rows))
