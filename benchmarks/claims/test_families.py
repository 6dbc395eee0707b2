"""The families of keras.applications from a Keras file to a verdict: what each kind of variant keeps of their answers.

Random weights, batch norms set to the images' statistics, so that answers vary. docs/families.md keeps the rows.
"""

from __future__ import annotations

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
SIZE, CLASSES, CALIBRATION, TESTED = 64, 10, 100, 300
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

Small classifiers of {SIZE}x{SIZE} colour images and {CLASSES} classes, with random weights, whose batch norms have the
images' statistics: converted and judged [by tensors](verdict.md#outputs-that-are-no-classes) on {TESTED} made-up
images, by `tox -e claims -- -k families`. It shows what converts and how exactly; a trained model's answers are farther
apart than a random one's, so that fewer of them flip.

A cell has the verdict by the default policy, the mean error of an image in units of the reference's spread, and the
answers (the largest of the numbers) that differ from Keras's.

| family | {" | ".join(KINDS)} | float32 beside Keras, largest difference | in int8 |
|---|{"---|" * (len(KINDS) + 2)}
"""


def images(folder: Path, count: int, seed: int) -> Path:
    """Made-up photographs: coloured noise of every coarseness, brightness and contrast."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    for number in range(count):
        cells = int(rng.choice([1, 2, 4, 8, 16, 32]))
        noise = rng.normal(rng.uniform(40, 215, 3), rng.uniform(5, 90), (cells, cells, 3))
        picture = Image.fromarray(noise.clip(0, 255).astype(np.uint8)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number:03}.png")
    return folder


def build(family: str, path: Path, pictures: Path) -> None:
    """Save a classifier of a family, and its config beside it."""
    import keras

    keras.utils.set_random_seed(0)
    shape = (SIZE, SIZE, 3)
    model = getattr(keras.applications, family)(input_shape=shape, weights=None, classes=CLASSES, **FAMILIES[family])
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    batch = np.stack([np.asarray(Image.open(file), np.float32) for file in sorted(pictures.iterdir())])
    scaled = family in ("MobileNet", "MobileNetV2", "ResNet50V2", "NASNetMobile", "DenseNet121")
    for norm in norms:
        norm.momentum = 0.0
    model(batch / 127.5 - 1 if scaled else batch, training=True)
    for norm in norms:
        norm.momentum = 0.99
    model.save(path)
    pixels = "pixel_range = [-1, 1]\n" if scaled else "pixel_range = [0, 255]\n"
    path.with_suffix(".toml").write_text(f'output = "tensor"\n{pixels}')


def cell_text(judged: CellRecord, outputs: FloatArray, reference: FloatArray) -> str:
    """One cell of the table."""
    (tensor,) = judged.tensors
    flips = int((outputs.argmax(axis=1) != reference.argmax(axis=1)).sum())
    return f"{judged.verdict.outcome}, {tensor.mean_error:.1e}, {flips}"


def measure(family: str, folder: Path) -> tuple[float, list[str]]:
    """float32's largest difference from Keras, and the cells of a family's row."""
    calibration, tested = images(folder / "calibration", CALIBRATION, 1), images(folder / "test", TESTED, 2)
    source, out, result = folder / "model.keras", folder / "tflite", folder / "check.json"
    build(family, source, calibration)
    made, refused = list(KINDS), dict[str, str]()
    for _ in KINDS:  # a kind that is refused does not cost the others
        try:
            convert(source, out, Images(calibration), kinds=made)
            break
        except SetupError as error:
            refused |= {kind: f"refused: {error}" for kind in made if f"{kind}:" in str(error)}
            made = [kind for kind in made if kind not in refused]
    asked = ["--models", str(out), "--reference", str(source), "--data", str(tested), "--json", str(result)]
    assert cli.main(["check", *asked, "--no-latency"]) in (0, 1, 3)
    checked = record.read(result)
    (answered,) = checked.arrays.predictions().tensors
    cells = {cell.variant: cell_text(cell, answered.cells[cell.cell], answered.reference) for cell in checked.cells}
    error = next(cell.tensors[0].max_difference for cell in checked.cells if cell.variant == "float32")
    left = integers.left_float((out / manifest.read(out)["int8"].file).read_bytes()) if "int8" in made else ""
    return error, [*({**cells, **refused}[kind] for kind in KINDS), f"{error:.1e}", left or "all integers"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_judged(family: str, tmp_path: Path, benchmark: BenchmarkFixture, claim: Claim) -> None:
    """The float32 file differs by at most 1e-4 from Keras in any number."""
    error, cells = benchmark.pedantic(measure, args=(family, tmp_path), rounds=1)
    claim(f"{family}'s float32 beside Keras, largest difference", error, at_most=1e-4)
    rows = dict(re.findall(r"(?m)^\| (\w+) \| (.*) \|$", DOCUMENT.read_text())) if DOCUMENT.exists() else {}
    rows[family] = " | ".join(cells)
    DOCUMENT.write_text(HEADING + "".join(f"| {name} | {rows[name]} |\n" for name in FAMILIES if name in rows))
