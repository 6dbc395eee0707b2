"""Mixed precision: int8, but the layers that quantization hurts most stay float32, under a budget of flips.

1. Each layer's harm: with that layer alone quantized, how far the probabilities move on some images.
2. Bisection for the fewest of the most harmful layers that, left float32, keep the flips on all images within budget.
   With every layer left float32 nothing flips, so an answer is always found; that it is the fewest of all possible
   choices is not claimed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converters import quantize
from converters.calibration import Ranges
from converters.interpreter import predict
from harness.artifacts import flatbuffer
from harness.artifacts.manifest import MIXED
from harness.images.dataset import Dataset, take

WITH_WEIGHTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "CONV_3D", "BATCH_MATMUL")
RANKING_IMAGES = 44


@dataclass(frozen=True)
class Choice:
    """The variant, the output tensors of what stays float32, and the flips that this leaves."""

    content: bytes
    float_layers: tuple[str, ...]  # one name a layer
    layers: int
    flips: int
    flips_all_int8: int


def choose(float32: bytes, ranges: Ranges, data: Dataset, max_flips: int) -> Choice:
    """Search on images of the training side. Runs where TensorFlow is."""
    units = layers(float32)
    reference = predict(float32, data)
    expected = reference.argmax(axis=1)

    _, always = quantize.in_integers(MIXED, float32, ranges)
    ranges = ranges | quantize.even_weights(float32)

    def variant(float_units: list[tuple[str, ...]]) -> bytes:
        names = [name for unit in float_units for name in unit]
        return quantize.apply(
            quantize.recipe(MIXED, [*names, *always]), float32, ranges | quantize.even_weights(float32)
        )

    def flips(float_units: list[tuple[str, ...]]) -> int:
        return int((predict(variant(float_units), data).argmax(axis=1) != expected).sum())

    everything = flips([])
    ranked = units
    if everything > max_flips:
        chosen = np.linspace(0, len(data) - 1, min(RANKING_IMAGES, len(data))).astype(int)
        few = take(data, chosen)
        harm = {}
        for unit in units:
            alone = variant([other for other in units if other != unit])
            harm[unit] = np.abs(predict(alone, few) - reference[chosen]).mean()
        ranked = sorted(units, key=lambda unit: -harm[unit])
    too_few, enough, left = -1, 0, everything
    if everything > max_flips:
        too_few, enough, left = 0, len(ranked), 0
        while enough - too_few > 1:
            middle = (enough + too_few) // 2
            if (count := flips(ranked[:middle])) <= max_flips:
                enough, left = middle, count
            else:
                too_few = middle
    left_float = ranked[:enough]
    return Choice(variant(left_float), tuple(unit[0] for unit in left_float), len(units), left, everything)


def layers(float32: bytes) -> list[tuple[str, ...]]:
    """A .tflite's operations in layers: one with weights and what follows it up to the next; their output tensors."""
    model = flatbuffer.read(float32)
    graph = model.subgraphs[0]
    units: list[list[str]] = []
    seen = False
    for operator in graph.operators:
        weighted = flatbuffer.operation(model, operator) in WITH_WEIGHTS
        if not units or (weighted and seen):
            units.append([])
        seen |= weighted
        units[-1].append(flatbuffer.outputs(graph, operator))
    return [tuple(unit) for unit in units]
