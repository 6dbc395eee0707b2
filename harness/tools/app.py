"""The last stage: what an app fed and what it made of the answers, held against a golden bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.artifacts.outputs import FloatArray, are_logits, as_classes, quantize, softmax
from harness.core.cell import Cell
from harness.core.outcome import Outcome, Verdict
from harness.core.shapes import Count, Shape, Share
from harness.judge import predictions, stages
from harness.judge.parity import Parity
from harness.judge.policy import Policy
from harness.judge.predictions import Judged, Predictions
from harness.judge.rules import Check, Statistics
from harness.judge.stages import StageDiff
from harness.tools import app_dump, app_guess, app_inputs, golden
from harness.tools.app_dump import Dump
from harness.tools.app_inputs import Explanation, Input, explain_inputs
from harness.tools.app_outputs import Output, explain_outputs
from harness.tools.app_readings import Images
from harness.tools.golden import Array, Golden, TensorInfo

MAX_FITTED = 48  # images to which mistakes are fitted
MAX_PIXELS = 30_000_000  # of those images together
IMAGES_NAMED = 3


class Examined(Shape):
    """What an app did with one kind of tensor. mistakes: none if it is right, or if none of the known ones explains it.

    fit: share of the tensors' variance (input), or of the images (output), that this accounts for. unlike: images that
    are not as expected; unexplained: those of them that the mistakes do not explain, of the images that were fitted.
    """

    right: bool
    mistakes: tuple[str, ...]
    known: bool
    fit: Share
    unlike: tuple[str, ...]
    unexplained: tuple[str, ...]


class AppReport(Shape, tag_field="schema", tag="harness-app/1"):
    """What `harness app` says of a dump. None for what the dump does not have, or could not be compared."""

    dump: str
    bundle: str
    variant: str
    model_sha256: str
    images: Count
    images_in_bundle: Count
    input: Examined | None
    output: Examined | None
    verdict: Verdict
    stages: tuple[StageDiff, ...]
    parity: Parity | None
    statistics: Statistics | None
    checks: tuple[Check, ...]

    @property
    def published(self) -> AppReport:
        return self


@dataclass(frozen=True)
class _Bundle:
    """The part of a bundle that a dump is of, in the dump's order. inputs, outputs: raw, [N, 1, ...]."""

    folder: Path
    golden: Golden
    places: tuple[int, ...]
    inputs: Array
    outputs: Array
    reference: FloatArray
    labels: npt.NDArray[np.int64]

    @property
    def takes(self) -> Input:
        info = self.golden.input
        limits = np.iinfo(info.dtype) if info.scale else None
        stored_range = (int(limits.min), int(limits.max)) if limits else (0, 0)
        return Input(self.golden.spec, info.scale, info.zero_point, stored_range)

    @property
    def gives(self) -> Output:
        info = self.golden.output
        return Output(info.scale, info.zero_point, info.dtype)

    def run(self, inputs: Array) -> Array:
        """The model's raw outputs on raw inputs [N, ...]."""
        shaped = inputs.reshape(-1, *self.golden.input.shape)
        return golden.run(golden.model(self.folder, self.golden), shaped, self.golden.model)

    def pictures(self, chosen: Sequence[int]) -> Images:
        places = [self.places[i] for i in chosen]
        return Images(golden.pictures(self.folder, self.golden, places), self.golden.spec)

    def names(self, chosen: npt.NDArray[np.bool_]) -> tuple[str, ...]:
        return tuple(self.golden.images[self.places[i]].name for i in np.flatnonzero(chosen))


def examine(path: Path, folder: Path, policy: Policy) -> AppReport:
    """Name what an app did wrong, and judge its answers. path: its dump; folder: the bundle.

    Raises SetupError: a bundle or dump that cannot be used.
    """
    index = golden.read(folder)
    dump = app_dump.read(path, index)
    images = [index.images[place] for place in dump.places]
    bundle = _Bundle(
        folder,
        index,
        dump.places,
        golden.tensors(folder, index, "input")[list(dump.places)],
        golden.tensors(folder, index, "output")[list(dump.places)],
        np.array([image.reference for image in images]),
        np.array([image.label for image in images], np.int64),
    )
    fed = None if dump.inputs is None else _examine_inputs(bundle, dump.inputs)
    on_fed = _on_the_apps_tensors(bundle, dump, fed)
    seen = None if dump.outputs is None else _examine_outputs(bundle, dump.outputs, on_fed)
    if fed is None and dump.outputs is not None and seen and not seen.known:
        fed, seen = _guessed(bundle, dump.outputs) or (fed, seen)
    judged = _judge(bundle, dump, on_fed, policy)
    return AppReport(
        dump=str(path),
        bundle=index.bundle,
        variant=index.variant,
        model_sha256=index.model_sha256,
        images=len(dump.places),
        images_in_bundle=len(index.images),
        input=fed,
        output=seen,
        verdict=_verdict(judged.verdict, fed, seen),
        stages=judged.stages,
        parity=judged.parity,
        statistics=judged.statistics,
        checks=judged.checks,
    )


def _examine_inputs(bundle: _Bundle, inputs: Array) -> Examined:
    info, takes = bundle.golden.input, bundle.takes
    expected = info.real(bundle.inputs)
    close = app_inputs.are_right(inputs, expected, takes)
    if close.all():
        return Examined(True, (), True, 1.0, (), ())
    off = np.abs(inputs - (bundle.inputs if info.scale else expected).reshape(inputs.shape)).mean(axis=1)
    fitted = _spread(bundle, off, MAX_FITTED)
    explanation = explain_inputs(bundle.pictures(fitted), inputs[fitted], takes)
    unexplained = np.zeros(len(inputs), bool)
    unexplained[[fitted[i] for i in explanation.outliers]] = True
    return _examined(bundle, explanation, ~close, unexplained)


def _guessed(bundle: _Bundle, outputs: Array) -> tuple[Examined, Examined] | None:
    """Of an app that did not write its inputs: what it did to them, and to the outputs."""
    takes, classes = bundle.takes, outputs.shape[1]

    def run(real: FloatArray) -> FloatArray:
        info = bundle.golden.input
        stored = quantize(real, np.dtype(info.dtype).type, info.scale, info.zero_point)
        answers = bundle.golden.output.real(bundle.run(stored)).reshape(len(real), -1)
        return as_classes(answers) if classes > 1 else answers

    own = bundle.golden.output.real(bundle.outputs).reshape(len(outputs), -1)
    off = np.abs(outputs - (as_classes(own) if classes > 1 else own)).max(axis=1)
    tried = _spread(bundle, off, app_guess.images_to_try(takes))
    guess = app_guess.guess(bundle.pictures(tried), outputs[tried], takes, bundle.gives, run)
    if guess is None:
        return None
    none = np.zeros(len(outputs), bool)
    return _examined(bundle, guess.input, none, none), _examined(bundle, guess.output, none, none)


def _spread(bundle: _Bundle, off: npt.NDArray[np.floating], count: int) -> list[int]:
    """Images by how far they are off, evenly, the furthest among them, as many as can be read in every way in little
    time, and at most `count`."""
    order = np.argsort(-off, kind="stable")
    chosen = [int(i) for i in order[:: -(-len(order) // count)]]
    pixels = [np.prod(golden.size(bundle.folder, bundle.golden, bundle.places[i])) for i in chosen]
    total = np.cumsum(pixels)
    return sorted(chosen[: max(1, int((total <= MAX_PIXELS).sum()))])


def _on_the_apps_tensors(bundle: _Bundle, dump: Dump, fed: Examined | None) -> Array:
    """The model's raw outputs on the tensors that the app fed; the bundle's own if it fed the right ones, or did not
    say which."""
    if fed is None or dump.inputs is None or fed.right:
        return bundle.outputs
    return bundle.run(_as_fed(dump.inputs, bundle.golden.input))


def _as_fed(values: Array, info: TensorInfo) -> Array:
    """What the model got of an app's numbers: whole ones are stored ones, modulo 256; real ones are quantized."""
    dtype = np.dtype(info.dtype)
    if not info.scale:
        return values.astype(dtype)
    if (values == np.round(values)).all():
        return values.astype(np.int64).astype(dtype)
    return quantize(values, dtype.type, info.scale, info.zero_point)


def _examine_outputs(bundle: _Bundle, outputs: Array, on_fed: Array) -> Examined:
    info = bundle.golden.output
    expected = info.real(on_fed).reshape(len(outputs), -1)
    if outputs.shape[1] > 1:
        expected = as_classes(expected)
    explanation = explain_outputs(outputs, expected, bundle.gives)
    unlike = np.zeros(len(outputs), bool)
    if explanation.mistakes or not explanation.known:
        unlike[:] = np.abs(outputs - expected).max(axis=1) > bundle.golden.tolerance
    unexplained = np.zeros(len(outputs), bool)
    unexplained[list(explanation.outliers)] = True
    return _examined(bundle, explanation, unlike | unexplained, unexplained)


def _examined(
    bundle: _Bundle, explanation: Explanation, unlike: npt.NDArray[np.bool_], unexplained: npt.NDArray[np.bool_]
) -> Examined:
    fit = min(1.0, max(0.0, explanation.fit))
    names = bundle.names(unlike), bundle.names(unexplained)
    return Examined(explanation.right, explanation.mistakes, explanation.known, fit, *names)


def _judge(bundle: _Bundle, dump: Dump, on_fed: Array, policy: Policy) -> Judged:
    """The app's answers judged beside the variant's own on the bundle's tensors, by the variant's limits; without them,
    the variant's on the tensors that the app fed. The chain begins with the Keras model."""
    cell = Cell(bundle.golden.variant)
    keras: FloatArray = bundle.reference
    info = bundle.golden.output
    own, fed = (as_classes(info.real(outputs).reshape(len(keras), -1)) for outputs in (bundle.outputs, on_fed))
    app: FloatArray | None = None if dump.outputs is None else as_classes(dump.outputs.astype(np.float64))
    if are_logits(keras) and not (app is not None and are_logits(app)):
        keras, own, fed = softmax(keras), softmax(own), softmax(fed)
    chain = [("Keras", keras), (str(cell), own)]
    if dump.inputs is not None:
        chain.append((f"{cell} on the app's tensors", fed))
    if app is not None:
        chain.append((f"{cell} in the app", app))
    names = bundle.golden.spec.class_names
    answers = Predictions(bundle.labels, own, None, {cell: chain[-1][1]}, class_names=names)
    return replace(predictions.judge(cell, answers, policy), stages=stages.chain(chain, bundle.labels).diffs)


def _verdict(judged: Verdict, fed: Examined | None, seen: Examined | None) -> Verdict:
    """FAIL for every mistake, whatever the answers: an app that feeds other tensors is another app on other images."""
    reasons = []
    for what, examined in (("input", fed), ("output", seen)):
        if examined and not examined.right and (examined.mistakes or what == "input"):
            reasons.append(f"{what}: {sentence(examined)}")
    if not reasons:
        return judged
    return Verdict(Outcome.FAIL, (*reasons, *(judged.reasons if judged.outcome is Outcome.FAIL else ())))


def sentence(examined: Examined) -> str:
    """What an app did, for a person."""
    others = ""
    if examined.unexplained:
        others = f", but not {_listed(examined.unexplained)}"
    if not examined.known:
        return f"none of these mistakes explains it; {_listed(examined.unlike)} not as expected"
    if not examined.mistakes:
        return f"right{others}"
    return f"{' and '.join(examined.mistakes)} (explains {examined.fit:.1%} of it{others})"


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:IMAGES_NAMED])
    more = f" and {len(names) - IMAGES_NAMED} more" if len(names) > IMAGES_NAMED else ""
    return f"{len(names)} images ({shown}{more})" if len(names) > 1 else shown
