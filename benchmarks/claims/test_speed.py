"""What the harness promises of its own speed, as ratios measured in one run.

Each case times both sides in turn, several times over.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.claims.conftest import Claim
from benchmarks.claims.paired import has_amx, ratio, seconds
from benchmarks.conftest import MODEL, ROOT, VARIANTS
from harness.artifacts.manifest import KINDS, Variant
from harness.core import cores
from harness.images.dataset import Dataset
from harness.run import job, worker
from harness.run.devices import local
from models.config import DIGITS

CORES = cores.usable()


@pytest.mark.parametrize("kind", KINDS)
def test_accuracy_path(
    kind: str, variants: dict[str, Variant], data: Dataset, tmp_path: Path, benchmark: BenchmarkFixture, claim: Claim
) -> None:
    """The worker's pass over data/test reaches 85 % of a bare invoke loop's images per second times the cores."""
    images = data.inputs()
    content = variants[kind].path(VARIANTS).read_bytes()
    written = job.write(tmp_path, {kind: content}, data, None, parallel=CORES)

    def bare() -> float:
        model = worker.load(content, 1)
        model.set(model.quantize(images[:1])[0])
        model.invoke()
        count = 400
        return count / seconds(lambda: [model.invoke() for _ in range(count)]) * CORES

    def path() -> float:
        task = {"name": kind, "parallel": CORES}
        return len(data) / seconds(lambda: worker.answers({kind: content}, images, task))

    assert local.run(written, lambda *_: None).code == 0  # the whole worker runs, too
    share, ours, loop = benchmark.pedantic(ratio, args=(path, bare, 3), rounds=1)
    what = f"predictions: {kind}'s images a second / a bare loop's times the cores"
    claim(what, share, at_least=0.85, images_per_s=ours, bare_times_cores=loop)


def test_reference_is_batched(data: Dataset, benchmark: BenchmarkFixture, claim: Claim) -> None:
    """The reference pass has at least 10 times the images per second of one model.predict an image."""
    from converters import keras_file, keras_model

    model = keras_file.load(MODEL).model
    images = data.inputs()
    model.predict(images[:1], verbose=0)
    model.predict(images[:256], batch_size=keras_model.PREDICT_BATCH, verbose=0)

    def batched() -> float:
        part = images[:1024]
        return len(part) / seconds(lambda: model.predict(part, batch_size=keras_model.PREDICT_BATCH, verbose=0))

    def one_by_one() -> float:
        part = images[:40]
        return len(part) / seconds(lambda: [model.predict(image[None], verbose=0) for image in part])

    times, ours, playbook = benchmark.pedantic(ratio, args=(batched, one_by_one, 3), rounds=1)
    what = "reference: images a second / those of one model.predict an image"
    claim(what, times, at_least=10, images_per_s=ours, one_by_one_images_per_s=playbook)


def throughput(model: Any, batches: Any, size: int) -> Callable[[], float]:
    """Images a second of fitting a Keras model on some batches."""

    def fit() -> None:
        model.fit(batches, shuffle=False, verbose=0)

    fit()  # traces
    return lambda: size / seconds(fit)


def test_training(benchmark: BenchmarkFixture, claim: Claim) -> None:
    """Training the shipped architecture, batch 128: images per second beside plain Keras fit's.

    bfloat16 gains less where the processor has no matrix unit for it (AMX).
    """
    target = 3.5 if has_amx() else 3.0
    import keras
    import tensorflow as tf

    from models.config import TrainConfig
    from models.resnet import build_resnet
    from models.training import compile_model

    rng = np.random.default_rng(0)
    batch, steps = 128, 4
    images, labels = rng.random((batch * steps, 28, 28, 1), np.float32), rng.integers(0, 11, batch * steps)
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch)
    plain = build_resnet(164)
    plain.compile(keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True), "sparse_categorical_crossentropy")
    theirs = throughput(plain, batches, len(images))
    ours = throughput(compile_model(TrainConfig(batch_size=batch), steps=100), batches, len(images))
    times, fast, slow = benchmark.pedantic(ratio, args=(ours, theirs, 3), rounds=1)
    what = "training: images a second / plain Keras fit's"
    claim(what, times, at_least=target, images_per_s=fast, plain_fit_images_per_s=slow)


def test_training_input(benchmark: BenchmarkFixture, claim: Claim) -> None:
    """Batches drawn and augmented from images train at 95 % or more of one constant batch's speed."""
    import tensorflow as tf

    from harness.images import dataset
    from models.batches import Batches
    from models.config import TrainConfig
    from models.training import compile_model

    batch, steps = 128, 8
    settings = TrainConfig(batch_size=batch)
    drawn = Batches(dataset.load(ROOT / "data" / "calibration", DIGITS), settings, steps)
    images, labels = drawn[0]
    constant = tf.data.Dataset.from_tensors((images, labels)).cache().repeat(steps)
    model = compile_model(settings, steps=100)
    theirs = throughput(model, constant, batch * steps)
    ours = throughput(model, drawn, batch * steps)
    share, real, best = benchmark.pedantic(ratio, args=(ours, theirs, 3), rounds=1)
    what = "training: augmented batches, images a second / one constant batch's"
    claim(what, share, at_least=0.95, images_per_s=real, constant_images_per_s=best)
