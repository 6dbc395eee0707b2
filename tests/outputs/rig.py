"""Tiny Keras models of every kind of output, images that they tell apart, and the commands run on them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from harness.cli import main

SHAPE = (8, 8, 3)
TWO = ("dark", "light")


def paint(folder: Path, each: int, seed: int, names: tuple[str, ...] = TWO) -> Path:
    """Noisy pictures in a folder for each class, each class lighter than the one before."""
    rng = np.random.default_rng(seed)
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for image in range(each):
            level = 255 * (number + rng.uniform(0.1, 0.9)) / len(names)
            pixels = np.clip(rng.normal(level, 8, SHAPE), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{image}.png")
    return folder


@dataclass(frozen=True)
class Home:
    """A folder with a model, images for calibration and test, and what the commands make of them."""

    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "model.keras"

    @property
    def variants(self) -> Path:
        return self.folder / "variants"

    def convert(self, *more: str) -> int:
        images = ["--calibration", str(self.folder / "calibration"), "--data", str(self.folder / "test")]
        return main(["convert", str(self.model), "--out", str(self.variants), *images, *more])

    def check(self, *more: str, data: str = "test") -> int:
        """No latency. The record is `record`."""
        shared = ["--models", str(self.variants), "--reference", str(self.model), "--data", str(self.folder / data)]
        return main(["check", *shared, "--json", str(self.folder / "check.json"), "--no-latency", *more])

    @property
    def record(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads((self.folder / "check.json").read_text())
        return record

    @property
    def verdicts(self) -> dict[str, str]:
        """Each cell's."""
        return {cell["variant"]: cell["verdict"]["outcome"] for cell in self.record["cells"]}
