"""What the benchmarks share: the shipped model's variants, converted first where they are missing or stale."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from converters.convert import Images, convert
from harness.artifacts import manifest, reference
from harness.core.errors import SetupError
from harness.images import dataset
from harness.images.dataset import Dataset
from harness.output import terminal
from models.config import DIGITS

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "models" / "resnet164.keras"
VARIANTS = ROOT / "models" / "tflite"


@pytest.fixture(scope="session")
def variants() -> dict[str, manifest.Variant]:
    """The shipped model's variants by kind."""
    source = reference.model_sha256(MODEL)
    try:
        known = manifest.read(VARIANTS)
        for kind in manifest.KINDS:
            manifest.verify(VARIANTS, known[kind], source)
    except (SetupError, KeyError):
        images = Images(ROOT / "data" / "calibration", test=ROOT / "data" / "test")
        known = convert(MODEL, VARIANTS, images, terminal.step)
    return known


@pytest.fixture(scope="session")
def data() -> Dataset:
    """data/test."""
    return dataset.load(ROOT / "data" / "test", DIGITS)
