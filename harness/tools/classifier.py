"""One .keras or .tflite file: its inputs, its classes and its outputs. A .tflite file needs no TensorFlow."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from converters import keras_model
from converters.keras_process import KerasProcess
from harness.artifacts import manifest, reference
from harness.artifacts.outputs import are_logits, as_classes, dequantize, softmax
from harness.core import files
from harness.core.errors import SetupError
from harness.core.progress import Progress
from harness.images import spec
from harness.images.dataset import Dataset
from harness.images.spec import ModelSignature, ModelSpec
from harness.run import job
from harness.run.devices import local

KERAS, TFLITE = ".keras", ".tflite"
KERAS_2 = (".h5", ".hdf5")
TFLITE_MARK = slice(4, 8), b"TFL3"


@dataclass(frozen=True)
class Classifier:
    """The content of a model's file. imports: modules that register a Keras model's own layers."""

    path: Path
    content: bytes
    sha256: str
    spec: ModelSpec
    imports: tuple[str, ...] = ()

    @property
    def is_keras(self) -> bool:
        return self.path.suffix != TFLITE


def open_model(path: Path, store: Path, *, config: Path | None = None, imports: Sequence[str] = ()) -> Classifier:
    """Read a model's file and its spec: from its config, else from what was stored when it was converted.

    store: the folder whose manifest or reference outputs may describe a Keras model. config: if not beside the model.
    Raises SetupError: no such model, a model that takes no images, or a config that does not fit it.
    """
    content = _read(path)
    sha256 = files.sha256(content)
    configured = spec.load_config(path, config)
    known = _variant(sha256, path.parent) if path.suffix == TFLITE else _known(sha256, store)
    if known and not configured:
        return Classifier(path, content, sha256, _classifies(known, path), tuple(imports))
    if known:
        signature = known.signature
    else:
        runtime = "ai_edge_litert.interpreter" if path.suffix == TFLITE else "tensorflow"
        with KerasProcess(preload=runtime) as process:  # a damaged file may crash it
            if path.suffix == TFLITE:
                signature = _signature(path, process, content)
            else:
                signature = process.call(keras_model.signature, path, tuple(imports))
    return Classifier(
        path, content, sha256, _classifies(spec.combine(signature, configured, path), path), tuple(imports)
    )


def _classifies(takes: ModelSpec, path: Path) -> ModelSpec:
    """The same. Raises SetupError if the model gives others than classes."""
    if takes.outputs:
        raise SetupError(
            f"{path}: gives {', '.join(f'{output.name} {list(output.shape)}' for output in takes.outputs)}; expected "
            "classes alone; harness check judges such outputs"
        )
    return takes


def infer(
    model: Classifier, data: Dataset, progress: Progress = lambda task, done, total: None
) -> tuple[npt.NDArray[np.floating], str]:
    """Outputs [N, classes] as real numbers, logits turned into probabilities, and the name of the runtime.

    Raises SetupError if the model does not run or gives NaN.
    """
    if model.is_keras:
        with KerasProcess() as keras:
            outputs: npt.NDArray[np.floating] = keras.call(keras_model.predict, model.path, data, model.imports)
        runtime = "Keras"
    else:
        outputs, runtime = _run(model, data, progress)
    if broken := int((~np.isfinite(outputs)).any(axis=1).sum()):
        raise SetupError(
            f"{model.path}: NaN or infinite outputs on {broken} of {len(outputs)} images; expected finite numbers"
        )
    if are_logits(outputs):
        outputs = softmax(outputs) if outputs.shape[1] > 1 else 1 / (1 + np.exp(-outputs))
    return as_classes(outputs), runtime


def _read(model: Path) -> bytes:
    if model.suffix not in (KERAS, *KERAS_2, TFLITE):
        raise SetupError(f"{model}: expected a model's file, named *{KERAS}, *{KERAS_2[0]} or *{TFLITE}")
    if model.suffix != TFLITE:
        reference.model_sha256(model)
    try:
        content = model.read_bytes()
    except OSError as error:
        raise SetupError(f"{model}: expected a model ({error.strerror}); make one, or name another") from error
    where, mark = TFLITE_MARK
    if model.suffix == TFLITE and content[where] != mark:
        raise SetupError(f"{model}: not a TFLite file (its bytes 4 to 7 are not {mark.decode()}); convert again")
    return content


def _known(sha256: str, store: Path) -> ModelSpec | None:
    """A Keras model's spec by a folder's manifest or references. None if they do not know the model."""
    for variant in _manifest(store):
        if variant.source_sha256 == sha256:
            return variant.spec
    for path in sorted(store.glob(f"reference-{sha256[:12]}-*.npz")):
        if (stored := reference.read(path)) and stored.model_sha256 == sha256:
            return stored.spec
    return None


def _variant(sha256: str, folder: Path) -> ModelSpec | None:
    """A .tflite file's spec by the manifest beside it. None if there is none."""
    return next((variant.spec for variant in _manifest(folder) if variant.sha256 == sha256), None)


def _manifest(folder: Path) -> list[manifest.Variant]:
    try:
        return list(manifest.read(folder).values())
    except SetupError:
        return []


def _signature(path: Path, process: KerasProcess, content: bytes) -> ModelSignature:
    """The signature of a .tflite file: its images and classes."""
    try:
        inputs, outputs = process.call(_shapes, content)
    except SetupError as error:
        raise SetupError(f"{path}: does not run ({error}); expected a whole .tflite file, convert again") from error
    if len(inputs) != 1 or len(outputs) != 1 or len(inputs[0]) != 4 or len(outputs[0]) != 2:
        raise SetupError(
            f"{path}: maps {inputs} to {outputs}; expected [1, height, width, channels] to [1, classes] or [1, 1]"
        )
    _, height, width, channels = inputs[0]
    return ModelSignature((height, width), channels, (spec.only_classes(outputs[0][1]),))


def _shapes(content: bytes) -> tuple[list[list[int]], list[list[int]]]:
    """The shapes of a .tflite file's inputs and outputs, as the interpreter reads them."""
    from harness.run import worker

    runtime, _ = worker.find_runtime()
    interpreter = runtime.Interpreter(model_content=content)
    details = interpreter.get_input_details(), interpreter.get_output_details()
    inputs, outputs = ([[int(size) for size in tensor["shape"]] for tensor in side] for side in details)
    return inputs, outputs


def _run(model: Classifier, data: Dataset, progress: Progress) -> tuple[npt.NDArray[np.floating], str]:
    """A .tflite file's real outputs and its runtime, from a process of its own, which a damaged file may crash."""
    with tempfile.TemporaryDirectory(prefix="harness-job-") as folder:
        written = job.write_answers(Path(folder), model.content, data, job.ALL_CORES)
        ended = local.run(written, lambda task, done, total: progress(model.path.name, done, total))
        result = job.read_result(written, job.ANSWERS)
    if result is None:
        what = "the worker was silent too long" if ended.code is None else f"exit code {ended.code}"
        raise SetupError(
            f"{model.path}: does not run on {data.spec.images} ({', '.join(filter(None, (what, ended.tail)))}); "
            "expected a whole .tflite file: convert again"
        )
    arrays = result.arrays
    outputs = dequantize(arrays["outputs"], float(arrays["scale"]), int(arrays["zero_point"]))
    return outputs, f"{result.machine.runtime}, {result.machine.machine}"
