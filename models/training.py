"""A training run: from scratch, from given weights, or from where it was stopped."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from msgspec import structs

from converters import keras_file
from harness.core import shapes
from harness.core.errors import SetupError
from harness.core.files import check_writable, write_atomic
from harness.core.shapes import Shape
from harness.images import dataset, spec
from harness.images.dataset import Dataset
from harness.output import terminal
from harness.run.worker import text
from harness.tools import classifier
from models.batches import MISLABELLED, SURE, Batches, Held, Indices, check_classes, record_split, split, unsure
from models.callbacks import Bar, Checkpoint, Plateau, Progress, StopOnNaN, WarmUp, alone, beside, save
from models.config import TrainConfig
from models.fused_batch_norm import FusedBatchNormalization
from models.optimizer import NesterovSGD, SmoothedCrossentropy
from models.resnet import build_resnet

CPUINFO = Path("/proc/cpuinfo")
BFLOAT16 = {"amx_bf16", "avx512_bf16", "bf16"}  # processors' flags, ARM's the last


class HardExamples(Shape):
    """Names of the images that a model is unsure of. asked: which model, of which images, between which limits."""

    asked: dict[str, Any]
    unsure: list[str]


def train(settings: TrainConfig) -> keras.Model:
    """Train from scratch, or continue, to the last epoch. Returns the plain float32 model, saved at settings.out.

    Raises SetupError if data, settings, weights or checkpoint cannot be used, the disk is full or the loss is NaN.
    """
    keras.utils.set_random_seed(settings.seed)
    if settings.processes > 1:
        _join(settings)
    check_writable(settings.out.parent)
    with terminal.Bars() as bars:
        data = dataset.load(
            settings.data,
            settings.model,
            skip_bad=settings.skip_bad,
            progress=partial(bars, f"reading {settings.data}"),
        )
    if data.skipped:
        print(
            f"{settings.data}: left out {len(data.skipped)} files that cannot be used, {data.skipped[0]} the first",
            flush=True,
        )
    check_classes(data, settings)
    learn, held = split(data, settings.validation_share, settings.seed)
    training, validation = dataset.take(data, learn), dataset.take(data, held)
    steps = settings.steps_per_epoch or -(-len(training) // settings.batch_size)

    checkpoint = beside(settings.out, "checkpoint.keras")
    # A run may be continued with more epochs, and each process has its own number.
    run = repr((structs.replace(settings, epochs=1, process=0, coordinator=None), training.sha256, validation.sha256))
    model, progress = _start(settings, checkpoint, steps, run)
    first = settings.process == 0  # of several processes, the one that writes
    if first:
        record_split(beside(settings.out, "split.json"), settings, training, validation)
    if progress.epoch >= settings.epochs:
        print(f"{checkpoint}: already at epoch {progress.epoch} of {settings.epochs}")
    else:
        batches = Batches(training, settings, steps, progress.epoch, _hard_examples(settings, training))
        _keep_freed_memory()
        bar = Bar(settings, steps, progress.epoch)
        counting = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: setattr(batches, "epoch", epoch))
        callbacks = [counting, *_rate(settings, steps, progress), StopOnNaN(checkpoint)]
        if settings.average is not None:
            callbacks.append(keras.callbacks.SwapEMAWeights())  # for validation alone
        if first:
            callbacks += [Checkpoint(settings, checkpoint, progress, partial(plain_model, settings=settings)), bar]
            if settings.tensorboard:
                callbacks.append(keras.callbacks.TensorBoard(beside(settings.out, "logs"), write_graph=False))
        try:
            model.fit(
                batches,
                epochs=settings.epochs,
                initial_epoch=progress.epoch,
                validation_data=Held(validation, settings) if len(validation) else None,
                callbacks=callbacks,
                verbose=0,
            )
        finally:
            bar.close()
    best = beside(settings.out, "best.keras")
    if first and settings.save == "best" and best.exists():
        with alone():
            model = keras_file.load(best).model
    shipped = plain_model(model, settings)
    if first:
        save(shipped, settings.out)
        write_atomic(settings.out.with_suffix(".toml"), settings.model.to_toml().encode())
        print(f"{settings.out}: saved; {scales(shipped)}")
    return shipped


def compile_model(settings: TrainConfig, steps: int) -> keras.Model:
    """The network to train, with its optimizer built. steps: per epoch."""
    with _precision(precision(settings)):
        model = _build(settings, batch_norm=FusedBatchNormalization)
    if settings.average is not None:  # of statistics, too: the last ten batches' do not fit averaged weights
        for norm in _norms(model):
            norm.momentum = max(norm.momentum, settings.average)
    rate = learning_rate_schedule(settings, steps) if settings.schedule == "cosine" else settings.learning_rate
    average = {} if settings.average is None else {"use_ema": True, "ema_momentum": settings.average}
    optimizer = NesterovSGD(rate, momentum=settings.momentum, l2=settings.weight_decay, **average)
    optimizer.build(model.trainable_variables)
    compiled = False if keras.backend.backend() == "tensorflow" else "auto"
    loss = SmoothedCrossentropy(settings.label_smoothing)
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=compiled)
    return model


def _build(settings: TrainConfig, **options: Any) -> keras.Model:
    takes = settings.model
    shape = *takes.image_size, takes.channels
    return build_resnet(settings.depth, classes=len(takes.class_names), shape=shape, **options)


def learning_rate_schedule(settings: TrainConfig, steps: int) -> Any:
    """A linear warm-up to the peak, then a cosine to zero."""
    total = settings.epochs * steps
    warmup = round(total * settings.warmup_share)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=settings.learning_rate / 100,
        warmup_target=settings.learning_rate,
        warmup_steps=warmup,
        decay_steps=total - warmup,
    )


def plain_model(trained: keras.Model, settings: TrainConfig) -> keras.Model:
    """The model that ships: the same weights in float32, or their moving average, in Keras's own layers."""
    with _precision("float32"), alone():
        model = _build(settings)
        model.set_weights(trained.get_weights())
        if settings.average is not None and getattr(trained, "optimizer", None):  # a saved model's are averages already
            trained.optimizer.finalize_variable_values(model.trainable_variables)
    return model


def precision(settings: TrainConfig) -> str:
    """The settings', or the faster one here: a processor that imitates bfloat16 takes twice as long as in float32."""
    if settings.precision != "auto":
        return settings.precision
    processor_has_it = bool(BFLOAT16 & set(text(CPUINFO).split()))
    return "mixed_bfloat16" if processor_has_it or keras.distribution.list_devices("gpu") else "float32"


@contextmanager
def _precision(name: str) -> Iterator[None]:
    """Layers that are built inside compute with this precision; the global setting is restored."""
    policy = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.mixed_precision.set_dtype_policy(policy)


def _norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    return [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]


def scales(model: keras.Model) -> str:
    """Says whether every batch-norm scale is positive, which the converter needs to fold it exactly."""
    gamma = np.concatenate([keras.ops.convert_to_numpy(norm.gamma) for norm in _norms(model)])
    if gamma.min() > 0:
        return f"all {gamma.size} batch-norm scales are positive, the smallest {gamma.min():.2f}"
    return f"{(gamma <= 0).sum()} of {gamma.size} batch-norm scales are not positive: their layers will not be folded"


def _start(settings: TrainConfig, checkpoint: Path, steps: int, run: str) -> tuple[keras.Model, Progress]:
    """A compiled model and its progress: from the checkpoint, from the weights of settings.init, or from scratch."""
    model = compile_model(settings, steps)
    if not checkpoint.exists():
        if settings.init:
            _take_weights(model, settings.init)
        return model, Progress(run)
    remedy = f"remove it and {checkpoint.name} to start anew"
    stored = shapes.read_json(checkpoint.with_suffix(".json"), Progress, "the progress of a run", remedy)
    if stored.run != run:
        raise SetupError(
            f"{checkpoint}: left by a run with other settings or images; remove it to start anew, or give another --out"
        )
    try:
        trained = keras.models.load_model(checkpoint)
    except Exception as error:  # Keras raises whatever its parts raise
        raise SetupError(f"{checkpoint}: Keras cannot load it; remove it to start anew") from error
    model.set_weights(trained.get_weights())
    for variable, value in zip(model.optimizer.variables, trained.optimizer.variables, strict=True):
        if variable.name != "learning_rate":
            variable.assign(value)
    done = int(keras.ops.convert_to_numpy(trained.optimizer.iterations)) // steps
    print(f"{checkpoint}: continuing after epoch {done}", flush=True)
    return model, structs.replace(stored, epoch=done, history=stored.history[:done])


def _take_weights(model: keras.Model, path: Path) -> None:
    weights = keras_file.load(path).model.get_weights()
    shapes, expected = [w.shape for w in weights], [w.shape for w in model.get_weights()]
    if shapes != expected:
        raise SetupError(
            f"{path}: its {len(shapes)} weights, the last of shape {shapes[-1] if shapes else ()}, do not fit this "
            f"network's {len(expected)}, the last of shape {expected[-1]}; give its depth and [model] in the config"
        )
    model.set_weights(weights)


def _hard_examples(settings: TrainConfig, training: Dataset) -> Indices | None:
    """Indices of the training images that the model settings.hard_by is unsure of, kept in a file beside the model."""
    if settings.hard_by is None:
        return None
    judge = classifier.open_model(settings.hard_by, settings.hard_by.parent)
    names = settings.model.class_names
    if judge.spec.signature != settings.model.signature or judge.spec.class_names not in (
        names,
        spec.numbers(len(names)),
    ):
        raise SetupError(f"hard_by = {settings.hard_by}: takes {judge.spec}; expected {settings.model}")
    asked = {"model": judge.sha256, "takes": str(judge.spec), "images": training.sha256, "between": [MISLABELLED, SURE]}
    kept = beside(settings.out, "hard.json")
    try:
        stored = shapes.read_json(kept, HardExamples, "a list of hard images")
        if stored.asked == asked:
            return np.flatnonzero(np.isin(training.names, stored.unsure))
    except SetupError:
        pass  # no file yet, or a damaged one: predict again
    with terminal.Bars() as bars:
        outputs, _ = classifier.infer(judge, replace(training, spec=judge.spec), bars)
    hard = unsure(outputs, training)
    print(f"{settings.hard_by}: unsure of {len(hard)} of {len(training)} training images", flush=True)
    write_atomic(kept, shapes.encode(HardExamples(asked, [training.names[index] for index in hard])))
    return hard


def _rate(settings: TrainConfig, steps: int, progress: Progress) -> list[Any]:
    """The callbacks that set the learning rate, if no schedule does."""
    if settings.schedule == "cosine":
        return []
    warmup = WarmUp(settings.learning_rate, round(settings.epochs * steps * settings.warmup_share))
    if settings.schedule == "constant":
        return [warmup]
    return [warmup, Plateau(settings, progress.history)]


def _join(settings: TrainConfig) -> None:
    """Join the other processes of the run (JAX); each batch is split among them."""
    keras.distribution.initialize(settings.coordinator, settings.processes, settings.process)
    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))


def _keep_freed_memory() -> None:
    """Tell glibc to keep large freed blocks: returning each activation to the kernel costs 5 % of the time."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        m_trim_threshold, m_mmap_threshold, largest = -1, -3, 2**31 - 1
        libc.mallopt(m_mmap_threshold, largest)
        libc.mallopt(m_trim_threshold, largest)
    except OSError:
        return  # not glibc
