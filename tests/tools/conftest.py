"""Golden bundles of the tiny model, which tests of apps share."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main

BUNDLE_IMAGES = 40


def _bundle(kind: str, model: Path, variants: Path, images: Path, out: Path) -> Path:
    command = ["golden", kind, "--images", str(BUNDLE_IMAGES), "--out", str(out), "--models", str(variants)]
    assert main([*command, "--reference", str(model), "--data", str(images)]) == 0
    return out


@pytest.fixture(scope="package")
def int8_bundle(
    tiny_model: Path, tiny_variants: Path, few_images: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A golden bundle of int8. Read-only."""
    return _bundle("int8", tiny_model, tiny_variants, few_images, tmp_path_factory.mktemp("golden") / "int8")


@pytest.fixture(scope="package")
def float32_bundle(tiny_model: Path, tiny_variants: Path, few_images: Path, int8_bundle: Path) -> Path:
    """Of float32; after int8, so that the reference on these images is stored. Read-only."""
    return _bundle("float32", tiny_model, tiny_variants, few_images, int8_bundle.parent / "float32")
