"""Self-test of the gate: broken variants must not pass, and for the right reason; intact ones must pass."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from harness.artifacts import manifest, reference
from harness.artifacts.manifest import Variant
from harness.artifacts.outputs import FloatArray
from harness.check import references
from harness.core import files
from harness.core.cell import Cell
from harness.core.errors import SetupError
from harness.core.outcome import Outcome, Verdict
from harness.images import dataset
from harness.images.dataset import Dataset
from harness.judge import predictions
from harness.judge.policy import Policy
from harness.judge.predictions import Predictions
from harness.records import arrays
from harness.records.arrays import RecordArrays
from harness.run import execute, job, worker

REFUSED = "REFUSED"
NOT_RUN = "NOT RUN"
MAX_BROKEN_IMAGES = 300  # that a broken variant is run on; intact ones are run on all

Step = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class Case:
    """A variant judged by the gate. because: words that one of its reasons must contain."""

    name: str
    expected: str  # an outcome, or REFUSED
    because: str
    outcome: str
    reason: str

    @property
    def shown(self) -> str:
        """The reason that was expected, if it is among the verdict's; else all of them."""
        return next((part for part in self.reason.split("; ") if self.because in part), self.reason)

    @property
    def held(self) -> bool:
        return self.outcome == self.expected and self.because in self.reason


@dataclass(frozen=True)
class _Subject:
    """The intact variant that the cases break, and what a check of it needs."""

    folder: Path
    kind: str
    variant: Variant
    data: Dataset
    expected: reference.Reference
    limits: Policy

    def content(self) -> bytes:
        return self.variant.path(self.folder).read_bytes()

    def some(self) -> _Subject:
        """The same with some of the images, evenly spread."""
        count = len(self.data)
        chosen = np.linspace(0, count - 1, min(count, MAX_BROKEN_IMAGES)).round().astype(int)
        expected = dataclasses.replace(self.expected, outputs=self.expected.outputs[chosen], folded=None)
        return dataclasses.replace(self, data=dataset.take(self.data, chosen), expected=expected)


def outcome(cases: Sequence[Case]) -> Outcome:
    """FAIL if a case was not judged as expected; INCONCLUSIVE if the only such cases could not be run."""
    wrong = [case.outcome for case in cases if not case.held]
    return Outcome.PASS if not wrong else Outcome.INCONCLUSIVE if set(wrong) == {NOT_RUN} else Outcome.FAIL


def run(
    models: Path, reference_model: Path, data_folder: Path, limits: Policy, step: Step, *, skip_bad: bool = False
) -> list[Case]:
    """Judge every case by these limits. Raises SetupError if there is no intact variant to break."""
    variants = manifest.read(models)
    kind = next((kind for kind in ("int8", *variants) if kind in variants), None)
    if kind is None:
        raise SetupError(f"{models}: its manifest names no variants; convert again")
    manifest.verify(models, variants[kind], reference.model_sha256(reference_model))
    if variants[kind].spec.outputs:
        raise SetupError(
            f"{models}: the model gives others than classes; expected classes alone, which are broken here"
        )
    data = dataset.load(data_folder, variants[kind].spec, skip_bad=skip_bad)
    expected = references.obtain(reference_model, data, models, step)
    subject = _Subject(models, kind, variants[kind], data, expected, limits)
    some = subject.some()
    cases = []
    for name, outcome, because, attempt in (
        *_inputs(subject, some),
        *_files(some),
        *_outputs(subject),
        *_sets(subject),
    ):
        with step(name):
            judged, reason = _attempt(attempt)
        cases.append(Case(name, outcome, because, judged, reason))
    return cases


_Attempt = tuple[str, str, str, Callable[[], Verdict]]


def _attempt(action: Callable[[], Verdict]) -> tuple[str, str]:
    try:
        verdict = action()
    except SetupError as error:
        return (NOT_RUN if "needs TensorFlow" in str(error) else REFUSED), str(error)
    return str(verdict.outcome), "; ".join(verdict.reasons)


def _inputs(subject: _Subject, some: _Subject) -> Iterator[_Attempt]:
    """The intact variant, with right and wrong inputs."""
    yield "the variant as it is", Outcome.PASS, "accuracy drop", lambda: _answer(subject, subject.content())
    pixels = some.data.images
    changed = {
        "wrong input scale: twice the model's": pixels // 2,
        "wrong input zero point: 128 off": np.minimum(pixels.astype(int) + 128, 255).astype(np.uint8),
        "input inverted": 255 - pixels,
        "two images swapped on the way in": np.concatenate([pixels[-1:], pixels[1:-1], pixels[:1]]),
    }
    for name, images in changed.items():
        yield name, Outcome.FAIL, "wrong input", lambda images=images: _answer(some, some.content(), images)  # type: ignore[misc]


def _files(subject: _Subject) -> Iterator[_Attempt]:
    """Files that are not the variant, with a manifest that says so and with one that does not."""

    def told(variant: Variant, content: bytes) -> Verdict:
        with tempfile.TemporaryDirectory(prefix="harness-selftest-") as folder:
            variant.path(Path(folder)).write_bytes(content)
            manifest.verify(Path(folder), variant, subject.expected.model_sha256)
        return Verdict(Outcome.PASS, ("not noticed",))

    content = subject.content()
    stale = replace(subject.variant, source_sha256=files.sha256(b"another model"))
    yield "a stale variant, its manifest says so", REFUSED, "stale", lambda: told(stale, content)
    yield "a truncated file", REFUSED, "truncated", lambda: told(subject.variant, content[:-5000])
    yield (
        "a truncated file, its manifest made to match",
        Outcome.FAIL,
        "refused",
        lambda: _answer(subject, content[: len(content) // 2]),
    )
    yield (
        "another model's weights, its manifest made to match",
        Outcome.FAIL,
        "answers differ from the reference",
        lambda: _answer(subject, _other_weights(content)),
    )
    yield (
        "int8, calibrated on one constant image",
        Outcome.FAIL,
        "probability difference",
        lambda: _answer(subject, _badly_calibrated(subject)),
    )


def _outputs(subject: _Subject) -> Iterator[_Attempt]:
    """Outputs changed after an intact inference."""
    sound = subject.expected.outputs.astype(np.float64)
    count, classes = sound.shape
    swapped, collapsed, missing = sound.copy(), sound.copy(), sound.copy()
    answer = sound.argmax(axis=1)
    surest = [int(np.where(answer == label, sound[:, label], -1).argmax()) for label in np.unique(answer)]
    first, second = surest[0], surest[-1]
    swapped[[first, second]] = sound[[second, first]]
    collapsed[:, 1] += collapsed[:, 0]
    collapsed[:, 0] = 0
    missing[-1] = np.nan
    broken = {
        "output not dequantized": (np.round(sound * 256) - 128, "not dequantized"),
        "NaN outputs": (np.full_like(sound, np.nan), f"NaN or infinite outputs on {count}"),
        "NaN on one image": (missing, f"NaN or infinite outputs on 1 of {count}"),
        "constant output": (np.full_like(sound, 1 / classes), "constant"),
        "one class collapsed": (collapsed, "never answered"),
        "labels shifted by one": (np.roll(sound, 1, axis=1), "classes shifted"),
        "two images' outputs swapped": (swapped, "swapped"),
        "one answer too few": (sound[:-1], "do not pair"),
        "one class too few": (sound[:, :-1], "do not pair"),
        "1.5 % of answers broken, which MLPerf allows": (_spoilt(sound, 0.015), "accuracy drop"),
    }
    for name, (outputs, because) in broken.items():
        yield name, Outcome.FAIL, because, lambda outputs=outputs: _judge(subject, outputs)  # type: ignore[misc]
    yield "an identical copy", Outcome.PASS, "accuracy drop 0.00", lambda: _judge(subject, sound)


def _sets(subject: _Subject) -> Iterator[_Attempt]:
    """Sets that are too small to decide."""
    sound = subject.expected.outputs
    few = np.random.default_rng(0).permutation(len(sound))[:30]
    yield "thirty images", Outcome.INCONCLUSIVE, "do not decide", lambda: _judge(subject, sound[few], few)
    yield "an empty set", Outcome.FAIL, "nothing to compare", lambda: _judge(subject, sound[:0], few[:0])


def _judge(subject: _Subject, outputs: FloatArray, chosen: npt.NDArray[Any] | None = None) -> Verdict:
    part = slice(None) if chosen is None else chosen
    answered = Predictions(
        subject.data.labels[part],
        subject.expected.outputs[part],
        None,
        {Cell(subject.kind): outputs},
        class_names=subject.data.spec.class_names,
    )
    return predictions.judge(Cell(subject.kind), answered, subject.limits).verdict


def _answer(subject: _Subject, content: bytes, images: npt.NDArray[np.uint8] | None = None) -> Verdict:
    """The verdict on a file, from a whole job in its own worker process."""
    data = subject.data
    if images is not None:
        data = dataset.build(images, data.labels.tolist(), data.names, data.spec)
    with tempfile.TemporaryDirectory(prefix="harness-selftest-") as folder:
        written = job.write(Path(folder), {subject.kind: content}, data, None, job.ALL_CORES)
        outputs = execute.run(written, lambda *_: None)
    if subject.kind in outputs.failures:
        return outputs.failures[subject.kind]
    cell = Cell(subject.kind)
    stored = (
        arrays.image_arrays(data.names, data.labels, subject.data.input_means())
        | arrays.reference_arrays(subject.expected.outputs, None)
        | arrays.answer_arrays(cell, outputs.results[subject.kind].arrays, subject.variant.input)
    )
    return predictions.judge(cell, RecordArrays(stored).predictions(), subject.limits).verdict


def _spoilt(sound: FloatArray, share: float) -> FloatArray:
    """Some confident predictions changed to the next class."""
    chosen = np.random.default_rng(0).permutation(len(sound))[: round(len(sound) * share)]
    spoilt = sound.copy()
    spoilt[chosen] = np.roll(sound[chosen], 1, axis=1)
    return spoilt


def _other_weights(content: bytes) -> bytes:
    """The file with the order of every large constant's bytes reversed: the same network, other weights."""
    runtime, _ = worker.find_runtime()
    resolver = runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES  # quiet
    interpreter = runtime.Interpreter(model_content=content, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    changed = content
    for tensor in interpreter.get_tensor_details():
        try:
            stored = interpreter.get_tensor(tensor["index"]).tobytes()
        except ValueError:  # not a constant
            continue
        if len(stored) > 1000 and stored in changed:
            changed = changed.replace(stored, stored[::-1], 1)
    return changed


def _badly_calibrated(subject: _Subject) -> bytes:
    """int8 of the float32 variant, its ranges taken from one white image, a hundred times."""
    from converters import calibration, quantize
    from converters.keras_process import KerasProcess

    float32 = manifest.read(subject.folder).get("float32")
    if float32 is None:
        raise SetupError(f"{subject.folder}: has no float32 variant to quantize badly; convert again")
    pixels = np.full((20, *subject.data.spec.shape), 255, np.uint8)
    white = dataset.build(pixels, [0] * 20, ["white"] * 20, subject.data.spec)
    with KerasProcess() as keras:
        content = float32.path(subject.folder).read_bytes()
        return keras.call(quantize.make, "int8", content, keras.call(calibration.measure, content, white))
