"""Why a quantized variant predicts differently: every layer's output beside the float variant's, on the same images.

Both files are run with all tensors kept and without a delegate. Layers are paired by name: quantizers keep names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters import calibration, equalize
from harness.artifacts import manifest
from harness.artifacts.outputs import as_classes
from harness.core.errors import SetupError
from harness.core.progress import Progress
from harness.images import dataset
from harness.run import worker

Values = npt.NDArray[np.float64]

MAX_CLIPPED = 0.01  # share of a layer's values; with more its range is too narrow
MAX_CLIPPING_ERROR = 0.5  # share of a layer's squared error; with more clipping is the cause
MIN_USED = 0.1  # share of the range; with less it is too wide
NO_ERROR_DB = 200.0  # stands for equal outputs
BEST_DB = 50.0  # the most that 8 bits can hold; a better input counts as this much


@dataclass(frozen=True)
class Layer:
    """One operation's output, over all images. Decibels of signal to noise; shares of 1.

    lost_db: how much lower its signal to noise is than the lowest of its inputs, at most BEST_DB.
    clipped: share of values beyond what the tensor can store. clipping_error: share of the squared error from those.
    used: the values' extent as a share of what the tensor can store. These three: None if it is not quantized.
    """

    position: int
    name: str
    operation: str
    snr_db: float
    lost_db: float
    cosine: float
    clipped: float | None
    clipping_error: float | None
    used: float | None


@dataclass(frozen=True)
class Explanation:
    """layers: in the order of computation. causes: in sentences, the most likely first."""

    layers: tuple[Layer, ...]
    causes: tuple[str, ...]
    images: int
    kind: str = ""
    model: str = ""

    @property
    def ranked(self) -> tuple[Layer, ...]:
        """The layers, those that lose most first."""
        return tuple(sorted(self.layers, key=lambda layer: -layer.lost_db))


@dataclass
class _Sums:
    """Sums over one tensor's values, image by image."""

    signal: float = 0.0
    noise: float = 0.0
    product: float = 0.0
    other: float = 0.0
    clipping: float = 0.0
    clipped: int = 0
    count: int = 0
    low: float = math.inf
    high: float = -math.inf

    def add(self, expected: Values, actual: Values, limits: tuple[float, float] | None) -> None:
        noise = (expected - actual) ** 2
        self.signal += float((expected**2).sum())
        self.other += float((actual**2).sum())
        self.product += float((expected * actual).sum())
        self.noise += float(noise.sum())
        self.count += expected.size
        self.low, self.high = min(self.low, float(expected.min())), max(self.high, float(expected.max()))
        if limits:
            beyond = (expected < limits[0]) | (expected > limits[1])
            self.clipped += int(beyond.sum())
            self.clipping += float(noise[beyond].sum())

    @property
    def snr_db(self) -> float:
        if self.noise == 0:
            return NO_ERROR_DB
        return 10 * math.log10(max(self.signal, 1e-30) / self.noise)


def variant(
    models: Path, kind: str, folder: Path, images: int, progress: Progress, *, skip_bad: bool = False
) -> Explanation:
    """Explain a variant beside the float32 one of its folder, on some images of another folder. Raises SetupError."""
    known = manifest.read(models)
    pair = {name: manifest.find(known, name, models) for name in ("float32", kind)}
    for entry in pair.values():
        manifest.verify(models, entry, entry.source_sha256)
    takes = manifest.spec_of(pair, models)
    chosen = calibration.choose(dataset.load(folder, takes, skip_bad=skip_bad), images)
    float32, quantized = (entry.path(models).read_bytes() for entry in pair.values())
    explanation = explain(
        float32, quantized, chosen.inputs(), takes.class_names, partial(progress, f"layers of {kind}")
    )
    return replace(explanation, kind=kind, model=str(pair[kind].path(models)))


def explain(
    float32: bytes,
    quantized: bytes,
    images: npt.NDArray[np.float32],
    class_names: Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Explanation:
    """Compare every layer over float images [N, H, W, C]. class_names: numbers by default.

    Raises SetupError if the files share no layers.
    """
    before, after = KeptTensors(float32), KeptTensors(quantized)
    factors = {name: factor.astype(np.float64) for name, factor in equalize.factors(quantized).items()}
    shared = [op for op in after.operations if (name := after.name(op)) in before.outputs and name in after.outputs]
    if not shared:
        raise SetupError("the two files have no layer of the same name and shape; expected variants of one conversion")
    sums = {after.name(op): _Sums() for op in shared}
    entry, answers = _Sums(), []
    for number, image in enumerate(images):
        before.run(image)
        after.run(image)
        entry.add(image.astype(np.float64), after.real(after.entry)[0], after.limits(after.entry))
        for op in shared:
            name = after.name(op)
            expected, actual = before.real(before.outputs[name]), after.real(after.outputs[name])
            if expected.shape != actual.shape:
                raise SetupError(f"layer {name}: shapes {expected.shape} and {actual.shape}; expected one conversion's")
            sums[name].add(expected * factors.get(name, 1.0), actual, after.limits(after.outputs[name]))
        answers.append((before.real(before.answer)[0], after.real(after.answer)[0]))
        progress(number + 1, len(images))
    layers = tuple(_layers(after, shared, sums, entry))
    expected, actual = (as_classes(np.array(side)).astype(np.float64) for side in zip(*answers, strict=True))
    causes = tuple(_causes(after, layers, entry, expected, actual, class_names))
    return Explanation(layers, causes, len(images))


class KeptTensors:
    """An interpreter that keeps every tensor."""

    def __init__(self, content: bytes) -> None:
        runtime, _ = worker.find_runtime()
        resolver = runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        try:
            self._interpreter = runtime.Interpreter(
                model_content=content, experimental_preserve_all_tensors=True, experimental_op_resolver_type=resolver
            )
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise SetupError(
                f"the interpreter refuses the file ({str(error).splitlines()[0]}); convert again"
            ) from error
        self.tensors: dict[int, dict[str, Any]] = {t["index"]: t for t in self._interpreter.get_tensor_details()}
        self.operations: list[dict[str, Any]] = self._interpreter._get_ops_details()
        self.outputs = {self.name(op): int(op["outputs"][0]) for op in self.operations}
        self.entry = int(self._interpreter.get_input_details()[0]["index"])
        self.answer = int(self._interpreter.get_output_details()[0]["index"])

    def name(self, operation: dict[str, Any]) -> str:
        return str(self.tensors[int(operation["outputs"][0])]["name"])

    def run(self, image: npt.NDArray[np.float32]) -> None:
        scale, zero_point = self.tensors[self.entry]["quantization"]
        dtype = self.tensors[self.entry]["dtype"]
        stored = image[np.newaxis]
        if scale:
            limits = np.iinfo(dtype)
            stored = np.clip(np.round(stored / scale + zero_point), limits.min, limits.max)
        self._interpreter.set_tensor(self.entry, stored.astype(dtype))
        self._interpreter.invoke()

    def stored(self, index: int) -> npt.NDArray[Any]:
        """A tensor's values as they are stored."""
        values: npt.NDArray[Any] = self._interpreter.get_tensor(index)
        return values

    def real(self, index: int) -> Values:
        """A tensor's values as real numbers."""
        values: Values = self.stored(index).astype(np.float64)
        scale, zero_point = self.tensors[index]["quantization"]
        return (values - zero_point) * scale if scale else values

    def limits(self, index: int) -> tuple[float, float] | None:
        """The smallest and largest real number that a quantized tensor stores, and half a step. None if it is float."""
        scale, zero_point = self.tensors[index]["quantization"]
        if not scale:
            return None
        stored = np.iinfo(self.tensors[index]["dtype"])
        return (stored.min - zero_point - 0.5) * scale, (stored.max - zero_point + 0.5) * scale


def _layers(after: KeptTensors, shared: list[dict[str, Any]], sums: dict[str, _Sums], entry: _Sums) -> Iterator[Layer]:
    known = {after.entry: entry.snr_db}
    for position, op in enumerate(shared):
        name, output = after.name(op), int(op["outputs"][0])
        total, limits = sums[name], after.limits(output)
        snr_db = total.snr_db
        inputs = [known[int(i)] for i in op["inputs"] if int(i) in known]
        known[output] = snr_db
        norm = math.sqrt(total.signal * total.other)
        extent = max(total.high, 0) - min(total.low, 0)
        yield Layer(
            position=position,
            name=name,
            operation=str(op["op_name"]),
            snr_db=snr_db,
            lost_db=min([*inputs, BEST_DB]) - snr_db,
            cosine=total.product / norm if norm else float(total.signal == total.other),
            clipped=total.clipped / total.count if limits else None,
            clipping_error=(total.clipping / total.noise if total.noise else 0.0) if limits else None,
            used=extent / (limits[1] - limits[0]) if limits else None,
        )


def _causes(
    after: KeptTensors,
    layers: tuple[Layer, ...],
    entry: _Sums,
    expected: Values,
    actual: Values,
    class_names: Sequence[str],
) -> Iterator[str]:
    """The most likely first: causes before the network, in it, and after it."""
    if limits := after.limits(after.entry):
        clipped = entry.clipped / entry.count
        used = (entry.high - entry.low) / (limits[1] - limits[0])
        if clipped > MAX_CLIPPED or used < 0.5:
            yield (
                f"wrong input quantization: it stores {limits[0]:.3g} to {limits[1]:.3g}, the images take "
                f"{entry.low:.3g} to {entry.high:.3g}, {clipped:.1%} of the pixels are clipped"
            )
    narrow = [
        layer
        for layer in layers
        if layer.operation != "SOFTMAX"  # its range is fixed; the most confident outputs are a little beyond it
        and (layer.clipped or 0) > MAX_CLIPPED
        and (layer.clipping_error or 0) > MAX_CLIPPING_ERROR
        and layer.snr_db < 30
    ]
    if narrow:
        worst = max(narrow, key=lambda layer: layer.lost_db)
        yield (
            f"clipping range: {len(narrow)} of {len(layers)} layers store less than the images need; most is lost in "
            f"{short(worst.name)}, {worst.clipped:.1%} of its values clipped; calibrate on images like these"
        )
    wide = [layer for layer in layers if layer.used is not None and 0 < layer.used < MIN_USED]
    if wide:
        worst = min(wide, key=lambda layer: layer.used or 0)
        yield (
            f"range too wide: {len(wide)} layers use less than {MIN_USED:.0%} of their steps, {short(worst.name)} "
            f"{worst.used:.1%}; an outlier in the calibration set"
        )
    classes = expected.ndim == 2 and (not class_names or expected.shape[1] == len(class_names))
    dead = classes and sorted(set(expected.argmax(axis=1).tolist()) - set(actual.argmax(axis=1).tolist()))
    if dead:
        names = ", ".join(class_names[label] if class_names else str(label) for label in dead)
        yield f"dead class: {names} is never predicted, but the float variant predicts it"
    integer = [layer for layer in layers if layer.used is not None]
    fallback = [layer for layer in layers if layer.used is None]
    if integer and fallback:
        first = ", ".join(short(layer.name) for layer in fallback[:3])
        yield f"float fallback: {len(fallback)} of {len(layers)} layers compute in float ({first}): slow, not inexact"


def short(name: str) -> str:
    """The first of the names that a converter joined, without the model's name."""
    first = name.split(";")[0]
    return "/".join(first.split("/")[1:]) or first
