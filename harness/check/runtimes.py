"""Variants in the runtimes of other Pythons, which an app may ship: what they predict there, in the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from msgspec import structs

from harness.artifacts import manifest
from harness.artifacts.manifest import Loaded, Variant
from harness.core.files import write_atomic
from harness.images import dataset
from harness.run import runtimes
from harness.run.runtimes import Answers

MAX_IMAGES = 55


def compare(folder: Path, variants: Mapping[str, Variant], images: Path, pythons: Sequence[str]) -> dict[str, Variant]:
    """The variants, and the folder's manifest, with what other Pythons' runtimes predict beside this one's.

    images: a folder; where there is none, noise is used. Raises SetupError.
    """
    takes = manifest.spec_of(variants, folder)
    pixels = np.random.default_rng(0).integers(0, 256, (MAX_IMAGES, *takes.shape), np.uint8)
    if images.exists():
        pixels = dataset.load(images, takes).images
    inputs = takes.to_input(pixels[:: -(-len(pixels) // MAX_IMAGES)])
    contents = manifest.contents(folder, variants)
    here = runtimes.answer(contents, inputs)
    runs = [runtimes.answer(contents, inputs, python) for python in pythons]
    compared = {
        kind: structs.replace(
            variant, runtimes=(*variant.runtimes, *(_same(predicted[kind], here[kind]) for predicted in runs))
        )
        for kind, variant in variants.items()
    }
    write_atomic(folder / manifest.FILE, manifest.encode(manifest.read(folder) | compared))
    return compared


def _same(predicted: Answers, expected: Answers) -> Loaded:
    if problem := predicted.problem or expected.problem:
        return Loaded(predicted.runtime, 0, 0, problem)
    same = sum(a == b for a, b in zip(predicted.top1, expected.top1, strict=True))
    return Loaded(predicted.runtime, len(predicted.top1), same, None)
