"""From a Keras model to a folder of variants and their manifest, in one pass: float32 first, the rest from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import structs

from converters import (
    calibration,
    calibration_lint,
    equalize,
    float32,
    integers,
    interpreter,
    keras_model,
    metadata,
    mixed,
    op_versions,
    quantize,
    recovery,
)
from converters.keras_process import KerasProcess
from harness.artifacts import flatbuffer, manifest, reference
from harness.artifacts.manifest import (
    CALIBRATED,
    KINDS,
    KNOWN_KINDS,
    MIXED,
    RECOVERED,
    Loaded,
    Mixed,
    Quantization,
    Variant,
)
from harness.core.errors import SetupError
from harness.core.files import check_writable, sha256, write_atomic_together
from harness.images import dataset, spec, tensors
from harness.images.dataset import Dataset
from harness.images.spec import ModelSpec

CALIBRATION_SIZE = 220  # at least: with many classes, so many of each that ranges show them
CALIBRATION_OF_CLASS = 2
TRIED_IMAGES = 55
RUNTIME = "ai-edge-litert"

Step = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class Images:
    """Where images come from: folders, or datasets at hand.

    calibration: of the training side, for the ranges. tuning: of the training side, to count flips on for mixed
    precision; the calibration images unless given. test: what neither may contain; none: nothing to compare with.
    calibration_size: None for CALIBRATION_SIZE, or CALIBRATION_OF_CLASS images of each class where these are more.
    labelled: whether names of folders or files say classes.
    """

    calibration: Path | Dataset
    tuning: Path | Dataset | None = None
    test: Path | Dataset | None = None
    calibration_size: int | None = None
    labelled: bool = True

    @property
    def are_tensors(self) -> bool:
        """Whether the files can hold no images."""
        given = (self.calibration, self.tuning, self.test)
        return any(isinstance(source, Path) and source.suffix == tensors.SUFFIX for source in given)


@dataclass(frozen=True)
class _Chosen:
    """The linted images, and what the linter had to say of those that calibrate. recovery: None if none are needed."""

    calibration: Dataset
    tuning: Dataset
    recovery: Dataset | None
    warnings: tuple[str, ...]


def convert(
    source: Path,
    out: Path,
    images: Images,
    step: Step = lambda name: nullcontext(),
    *,
    kinds: Sequence[str] = KINDS,
    max_flips: int | None = None,
    wish: recovery.Wish | None = None,
    imports: Sequence[str] = (),
    config: Path | None = None,
    batch: int | None = 1,
    about: metadata.About | None = None,
    integer_only: bool = False,
) -> dict[str, Variant]:
    """Write the variants of the given kinds and the folder's manifest; the manifest's content.

    step: called with each step's name; its context spans the step. Images are read only for kinds that need them.
    max_flips: of the mixed variant, made too where this is given; wish: for a recovered variant;
    imports: modules that register the model's own layers; config: of the model, if not beside it;
    batch: images that a file takes at once, None for any number; about: what TFLite metadata says of the model, None
    for files without metadata.
    integer_only: refuse where an int8 or int16x8 variant keeps float32 operations, mixed ones aside.
    Raises SetupError; then no file is left half-written, and the manifest names only files that are there.
    """
    kinds = _check_kinds(kinds, max_flips, wish)
    source_sha256 = reference.model_sha256(source)
    loaded_config = spec.load_config(source, config)
    if images.calibration_size is not None and images.calibration_size < 1:
        raise SetupError(f"--calibration-size {images.calibration_size}: expected at least 1")

    made: dict[str, bytes] = {}
    choice: tuple[mixed.Choice, Dataset] | None = None
    recovered: recovery.Recovered | None = None
    chosen = None
    # Calibration has a process of its own: its activations and the converter's graph are never in memory together.
    with KerasProcess() as keras, KerasProcess(preload="ai_edge_litert.interpreter") as apart:
        with step(f"reading {source.name}"):
            signature = keras.call(keras_model.signature, source, tuple(imports))
            takes = spec.combine(signature, loaded_config, source, tensors=images.are_tensors)
        if (max_flips is not None or wish) and not takes.class_names:
            option = "--recover, --qat" if max_flips is None else f"--max-flips {max_flips}"
            raise SetupError(f"{option}: {source.name} gives no classes, so that no answer flips")
        if wish:
            keras.call(keras_model.check_not_quantized, source, tuple(imports))
        lowered = keras.submit(float32.convert, source, takes, tuple(imports), batch=batch)
        calibrated = [kind for kind in kinds if kind in CALIBRATED]
        if calibrated:
            chosen = _choose(images, takes, wish, tuning=MIXED in kinds)
        check_writable(out)
        with step(f"{source.name} to float32"):
            base = lowered()
        measured = None if chosen is None else apart.submit(equalize.calibrate, base.content, chosen.calibration)
        for kind in [kind for kind in kinds if kind not in calibrated]:
            with step(f"float32 to {kind}") if kind != "float32" else nullcontext():
                made[kind] = base.content if kind == "float32" else keras.call(quantize.make, kind, base.content, None)
        if chosen is not None and measured is not None:
            with step(f"activation ranges of {len(chosen.calibration)} calibration images"):
                balanced, ranges = measured()
            if wish and chosen.recovery:
                sets = chosen.calibration, chosen.recovery
                recovered = recovery.recover(
                    keras, apart, source, tuple(imports), balanced, ranges, sets, wish, out, step, max_flips
                )
                choice = recovered.choice
                made[MIXED if choice else RECOVERED] = recovered.content
            for kind in [kind for kind in calibrated if kind != RECOVERED and kind not in made]:
                with step(f"float32 to {kind}"):
                    if kind == MIXED and max_flips is not None:
                        choice = keras.call(mixed.choose, balanced, ranges, chosen.tuning, max_flips), chosen.tuning
                        made[kind] = keras.call(op_versions.declare, choice[0].content)
                    else:
                        made[kind] = keras.call(quantize.make, kind, balanced, ranges)
        made = {kind: made[kind] for kind in kinds if kind in made}
        if about is not None:
            made = {
                kind: metadata.add(content, kind, source_sha256, source.stem, takes, about)
                for kind, content in made.items()
            }
        if integer_only and (left := _left_float(made)):
            raise SetupError(f"--integer-only: {'; '.join(left.values())}; replace these operations, or leave it out")
        with step("running each variant"):
            run = _run(made, chosen, takes, apart)
    origin = {
        "source_sha256": source_sha256,
        "spec": takes,
        "batch_norms_folded": base.batch_norms_folded,
        "batch_norms_kept": base.batch_norms_kept,
        "notes": base.notes,
        "runtimes": (run,),
    }
    described = {
        kind: _describe(kind, content, origin, chosen if kind in CALIBRATED else None) for kind, content in made.items()
    }
    for kind, note in _left_float(made).items():
        described[kind] = structs.replace(described[kind], notes=(*described[kind].notes, note))
    if choice is not None:
        assert max_flips is not None
        described[MIXED] = _with_choice(described[MIXED], *choice, max_flips)
    if recovered is not None:
        kind = MIXED if recovered.choice else RECOVERED
        described[kind] = structs.replace(described[kind], recovery=recovered.recovery)
    try:
        described = manifest.read(out) | described
    except SetupError:  # none there yet, or one that this replaces
        pass
    files = {described[kind].path(out): content for kind, content in made.items()}
    write_atomic_together(files | {out / manifest.FILE: manifest.encode(described)})
    return described


def _left_float(made: Mapping[str, bytes]) -> dict[str, str]:
    """By kind, in words, what stays float32 in variants that should be of integers."""
    left = {
        kind: integers.left_float(content) for kind, content in made.items() if kind in CALIBRATED and kind != MIXED
    }
    return {kind: f"{kind}: {text}" for kind, text in left.items() if text}


def _check_kinds(kinds: Sequence[str], max_flips: int | None, wish: recovery.Wish | None) -> tuple[str, ...]:
    for kind in kinds:
        if kind not in KNOWN_KINDS:
            raise SetupError(f"variant {kind!r} is not known; known are {', '.join(KNOWN_KINDS)}")
    if max_flips is not None and max_flips < 0:
        raise SetupError(f"--max-flips {max_flips}: expected 0 or more")
    if max_flips is None and MIXED in kinds:
        raise SetupError(f"{MIXED} needs a budget: add --max-flips N, the flips against float32 that are allowed")
    if wish is None and RECOVERED in kinds:
        raise SetupError(f"{RECOVERED} needs images of the training side: add --recover DIR")
    return tuple(dict.fromkeys((*kinds, *([] if max_flips is None else [MIXED]), *([RECOVERED] if wish else []))))


def _choose(images: Images, takes: ModelSpec, wish: recovery.Wish | None, *, tuning: bool) -> _Chosen:
    load = partial(_load, labelled=images.labelled)
    whole = load(images.calibration, takes)
    size = images.calibration_size or max(CALIBRATION_SIZE, CALIBRATION_OF_CLASS * len(takes.class_names))
    chosen = calibration.choose(whole, size)
    test = None if images.test is None else load(images.test, takes, skip_bad=True)
    warnings = calibration_lint.check(chosen, test, takes)
    tuned = chosen
    if tuning:
        tuned = whole if images.tuning is None else load(images.tuning, takes)
        calibration_lint.check(tuned, test, takes, "tuning set")
    recovering = None
    if wish:
        recovering = load(wish.images, takes)
        recovery.check_images(recovering, test, wish.plan)
    return _Chosen(chosen, tuned, recovering, warnings)


def _load(source: Path | Dataset, takes: ModelSpec, *, skip_bad: bool = False, labelled: bool = True) -> Dataset:
    return source if isinstance(source, Dataset) else dataset.load(source, takes, skip_bad=skip_bad, labelled=labelled)


def _run(made: Mapping[str, bytes], chosen: _Chosen | None, takes: ModelSpec, apart: KerasProcess) -> Loaded:
    """Each variant in this Python's runtime, in the other process: a file may crash it. Raises SetupError."""
    if chosen is None:
        data = dataset.build(takes.random(TRIED_IMAGES), [0] * TRIED_IMAGES, [""] * TRIED_IMAGES, takes)
    else:
        size = len(chosen.calibration)
        data = dataset.take(chosen.calibration, np.linspace(0, size - 1, min(size, TRIED_IMAGES)).astype(np.int64))
    for kind, content in made.items():
        try:
            apart.call(interpreter.predict, content, data)
        except SetupError as error:
            raise SetupError(f"{kind}: converted, but {RUNTIME} does not run it ({error}); not written") from error
    return Loaded(f"{RUNTIME} {version(RUNTIME)}", len(data), len(data), None)


def _describe(kind: str, content: bytes, origin: dict[str, Any], chosen: _Chosen | None) -> Variant:
    """A variant's manifest entry, read off the file itself."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    (entry,), (answer, *_) = interpreter.get_input_details(), interpreter.get_output_details()
    model = flatbuffer.read(content)
    return Variant(
        kind=kind,
        file=f"{kind}.tflite",
        sha256=sha256(content),
        size_bytes=len(content),
        calibration_sha256=chosen.calibration.sha256 if chosen else None,
        calibration_size=len(chosen.calibration) if chosen else None,
        calibration_warnings=chosen.warnings if chosen else (),
        mixed=None,
        input=_quantization(entry),
        output=_quantization(answer),
        op_versions=op_versions.of_operations(model),
        oldest_runtime=op_versions.oldest_runtime(model),
        **origin,
    )


def _with_choice(variant: Variant, choice: mixed.Choice, tuning: Dataset, max_flips: int) -> Variant:
    mixed = Mixed(
        float_layers=choice.float_layers,
        layers=choice.layers,
        max_flips=max_flips,
        flips=choice.flips,
        flips_all_int8=choice.flips_all_int8,
        images=len(tuning),
        images_sha256=tuning.sha256,
    )
    return structs.replace(variant, mixed=mixed)


def _quantization(details: dict[str, Any]) -> Quantization:
    scale, zero_point = details["quantization"]
    return Quantization(np.dtype(details["dtype"]).name, float(scale), int(zero_point))
