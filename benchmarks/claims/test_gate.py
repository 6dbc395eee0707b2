"""What judging costs beside inference and beside a bare pass over the same arrays."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

import numpy as np
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.claims.conftest import Claim
from benchmarks.claims.paired import seconds
from benchmarks.conftest import VARIANTS
from harness.artifacts.manifest import Variant
from harness.core.cell import Cell
from harness.images.dataset import Dataset
from harness.judge import policy, predictions
from harness.judge.predictions import Predictions
from harness.run import worker

INT8 = Cell("int8")


def test_a_hundred_thousand_predictions_are_judged(tmp_path: Path, benchmark: BenchmarkFixture, claim: Claim) -> None:
    """Under two seconds beyond reading them; the ratio is to bare NumPy: argmax, compare, largest difference."""
    images, classes = 100_000, 11
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, images)
    reference = rng.dirichlet(np.ones(classes) * 0.1, images).astype(np.float32)
    outputs = np.clip(np.round(reference * 256), 0, 255) / 256
    np.savez(tmp_path / "arrays.npz", labels=labels, reference=reference, outputs=outputs)
    with np.load(tmp_path / "arrays.npz") as stored:
        labels, reference, outputs = (stored[name] for name in ("labels", "reference", "outputs"))
    answered, limits = Predictions(labels, reference, reference, {INT8: outputs}), policy.load()

    def bare() -> None:
        (outputs.argmax(axis=1) != reference.argmax(axis=1)).sum()
        np.abs(outputs - reference).max()

    predictions.judge(INT8, answered, limits)  # imports

    def turn() -> tuple[float, float]:
        from harness.judge import paired_tests

        paired_tests._bound.cache_clear()
        return seconds(lambda: predictions.judge(INT8, answered, limits)), seconds(bare)

    pairs = benchmark.pedantic(lambda: [turn() for _ in range(5)], rounds=1)
    taken = median(ours for ours, _ in pairs)
    ratio = median(ours / theirs for ours, theirs in pairs)
    claim("judging: seconds for 100,000 predictions", taken, at_most=2.0, ratio_to_bare_numpy=ratio)


def test_judging_beside_inference(
    variants: dict[str, Variant], data: Dataset, benchmark: BenchmarkFixture, claim: Claim
) -> None:
    """Statistics, attribution and the kept flips add at most 10 % to one variant's pass over data/test."""
    from harness.judge import paired_tests

    content = variants["int8"].path(VARIANTS).read_bytes()
    answers = worker.answers({"int8": content}, data.inputs(), {"name": "int8", "parallel": 1})
    real = (answers["outputs"].astype(float) - answers["zero_point"]) * answers["scale"]
    answered, limits = Predictions(data.labels, real, real, {Cell("float32"): real, INT8: real}), policy.load()
    predictions.judge(INT8, answered, limits)  # imports

    def turn() -> float:
        paired_tests._bound.cache_clear()
        begin = time.perf_counter()
        predictions.judge(INT8, answered, limits)
        predictions.flipped(answered)
        judging = time.perf_counter() - begin
        task = {"name": "int8", "parallel": 2}
        return judging / seconds(lambda: worker.answers({"int8": content}, data.inputs(), task))

    share = benchmark.pedantic(lambda: median(turn() for _ in range(3)), rounds=1)
    claim("judging: its time / one variant's pass over data/test", share, at_most=0.10)
