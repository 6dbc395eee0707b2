"""From a .keras file to a folder of variants and their manifest, in one pass: float32 first, the rest from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from converters import calibration, dynamic_range, float32, int8, keras_model, manifest
from converters.keras_process import KerasProcess
from converters.manifest import KINDS, Quantization, Variant
from harness import dataset
from harness.errors import SetupError
from harness.files import check_writable, sha256, write_atomic

CALIBRATION_SIZE = 220

Step = Callable[[str], AbstractContextManager[None]]


def convert(
    source: Path,
    out: Path,
    step: Step,
    *,
    kinds: Sequence[str] = KINDS,
    calibration_folder: Path,
    calibration_size: int = CALIBRATION_SIZE,
    image_size: int = dataset.IMAGE_SIZE,
    classes: int = dataset.CLASSES,
) -> dict[str, Variant]:
    """Write the variants of the given kinds and the folder's manifest; the manifest's content.

    step: called with each step's name; its context spans the step. Calibration images are read only for int8.
    Raises SetupError; then no file is left half-written, and the manifest names only files that are there.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise SetupError(f"variant {kind!r} is not known; known are {', '.join(KINDS)}")
    if calibration_size < 1:
        raise SetupError(f"--calibration-size {calibration_size}: expected at least 1")
    source_sha256 = keras_model.sha256(source)
    chosen = None
    if "int8" in kinds:
        data = dataset.load(calibration_folder, classes=classes, image_size=image_size)
        chosen = calibration.choose(data, calibration_size)
    check_writable(out)

    made: dict[str, bytes] = {}
    with KerasProcess() as keras:
        with step(f"{source.name} to float32"):
            base = keras.call(float32.convert, source, image_size, classes)
            content = base.content
        if "float32" in kinds:
            made["float32"] = content
        if "dynamic_range" in kinds:
            with step("float32 to dynamic_range"):
                made["dynamic_range"] = keras.call(dynamic_range.quantize, content)
        if chosen is not None:
            with step(f"activation ranges of {len(chosen)} calibration images"):
                ranges = keras.call(calibration.measure, content, chosen.images)
            with step("float32 to int8"):
                made["int8"] = keras.call(int8.quantize, content, ranges)
        with step("loading each variant once"):
            origin = {
                "source_sha256": source_sha256,
                "batch_norms_folded": base.batch_norms_folded,
                "batch_norms_kept": base.batch_norms_kept,
            }
            variants = {
                kind: keras.call(_describe, kind, content, origin, chosen if kind == "int8" else None)
                for kind, content in made.items()
            }
    try:
        variants = manifest.read(out) | variants
    except SetupError:  # none there yet, or one that this replaces
        pass
    for kind, content in made.items():
        write_atomic(variants[kind].path(out), content)
    manifest.write(out, variants)
    return variants


def _describe(kind: str, content: bytes, origin: dict[str, Any], calibrated: dataset.Dataset | None) -> Variant:
    """A variant's manifest entry, read off the file itself, after one inference."""
    from importlib.metadata import version

    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_litert.tools import flatbuffer_utils

    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (entry,), (answer,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(entry["index"], np.zeros(entry["shape"], entry["dtype"]))
    interpreter.invoke()
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    versions: Counter[str] = Counter()
    for code in model.operatorCodes:
        name = flatbuffer_utils.opcode_to_name(model, model.operatorCodes.index(code))
        versions[name] = max(versions[name], code.version)
    declared = next(
        (model.buffers[m.buffer].data for m in model.metadata or [] if m.name == b"min_runtime_version"), None
    )
    return Variant(
        kind=kind,
        file=f"{kind}.tflite",
        sha256=sha256(content),
        size_bytes=len(content),
        calibration_sha256=calibrated.sha256 if calibrated else None,
        calibration_size=len(calibrated) if calibrated else None,
        input=_quantization(entry),
        output=_quantization(answer),
        op_versions=dict(sorted(versions.items())),
        min_runtime_version=bytes(declared).rstrip(b"\0").decode() if declared is not None else None,
        loaded_in=f"ai-edge-litert {version('ai-edge-litert')}",
        **origin,
    )


def _quantization(details: dict[str, Any]) -> Quantization:
    scale, zero_point = details["quantization"]
    return Quantization(np.dtype(details["dtype"]).name, float(scale), int(zero_point))
