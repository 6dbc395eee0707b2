"""From predictions to a cell's verdict: counted shard by shard, the counts added up, the sum judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, TypeVar

import numpy as np
import numpy.typing as npt

from harness.artifacts.outputs import FloatArray
from harness.core.cell import Cell
from harness.core.outcome import Outcome, Verdict, overall
from harness.images.spec import UNLABELLED
from harness.judge import agreement, diagnosis, labels, parity, rules, slices, stages, tally, tensors
from harness.judge.agreement import Agreement
from harness.judge.labels import LabelsOutput
from harness.judge.parity import Parity, PartParity
from harness.judge.policy import Limits, Policy
from harness.judge.rules import Check, Statistics
from harness.judge.slices import SliceTally, by_slice
from harness.judge.stages import Chain, StageDiff
from harness.judge.tally import Extreme, Mergeable, Tally, by_key, total
from harness.judge.tensors import TensorOutput, TensorParity, TensorTally
from harness.run.job import Ran

FLOAT = Cell("float32")  # the variant that the others are made from
T = TypeVar("T")
MAX_FLIPPED_KEPT = 500  # images whose answer changed, kept for looking at


@dataclass(frozen=True)
class Judged:
    """A cell's verdict and what it rests on. None for what could not be compared."""

    verdict: Verdict
    parity: Parity | None = None
    statistics: Statistics | None = None
    stages: tuple[StageDiff, ...] = ()
    tensors: tuple[TensorParity, ...] = ()
    slices: tuple[PartParity, ...] = ()
    labels: tuple[PartParity, ...] = ()
    checks: tuple[Check, ...] = ()
    host: Agreement | None = None


@dataclass(frozen=True)
class Predictions:
    """Outputs for the same images, as real numbers [N, classes]: the reference's, the folded Keras model's where they
    are known, and each cell's; labels [N]. tensors: the outputs that are no classes; 0 classes if all are such.

    input_means: the mean of each image as float input [N]. given_means: the same of the input that a cell was given,
    and by how much its input's quantization may move it. host: this machine's outputs of what a device answered, and
    the size of a step of them. slices: which one each image is in [N]; None if they are not divided.
    """

    labels: npt.NDArray[np.int64]
    reference: FloatArray
    folded: FloatArray | None
    cells: Mapping[Cell, FloatArray]
    input_means: FloatArray | None = None
    given_means: Mapping[Cell, tuple[FloatArray, float]] = field(default_factory=dict)
    host: Mapping[Cell, tuple[FloatArray, float]] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    tensors: tuple[TensorOutput, ...] = ()
    slices: npt.NDArray[np.str_] | None = None
    labels_output: LabelsOutput | None = None

    @property
    def truths(self) -> npt.NDArray[np.int64]:
        """The labels [N]; without them the reference's answers."""
        if not self.reference.shape[1]:
            return self.labels
        answers: npt.NDArray[np.int64] = self.reference.argmax(axis=1)
        return np.where(self.labels == UNLABELLED, answers, self.labels)


@dataclass(frozen=True)
class WrongInputs(Mergeable):
    """On how many images a cell was given another input than the image, and the furthest off, with its mean as given
    and as the image has it."""

    images: int
    worst: Extreme


def _of_both(one: T | None, other: T | None) -> T | None:
    return total((one, other)) if one and other else None


@dataclass(frozen=True)
class Counted(Mergeable):
    """A cell's predictions counted, of one shard or of several added up. tensors: by name."""

    images: int
    wrong_inputs: WrongInputs
    answers: Annotated[Tally | None, _of_both]  # None if the model gives no classes
    tensors: Annotated[Mapping[str, TensorTally], by_key]
    chain: Chain
    host: Annotated[Agreement | None, _of_both]  # None if this machine's outputs are not known, or do not pair
    slices: Annotated[Mapping[str, SliceTally], by_slice] = field(default_factory=dict)  # by name
    labels: Annotated[Mapping[str, Tally], by_key] = field(default_factory=dict)  # by name


def count(cell: Cell, predictions: Predictions, policy: Policy, start: int = 0) -> Counted:
    """One cell's answers to the images from number `start` on. Raises ValueError if they do not pair."""
    cap = policy.limits(cell).max_probability_difference
    wrong = _wrong_inputs(cell, predictions, start)
    others = {output.name: tensors.count(output.cells[cell], output.reference) for output in predictions.tensors}
    parts = _slices(cell, predictions)
    if not predictions.reference.shape[1]:
        output = predictions.labels_output
        by_label = labels.count(output, cell, start, cap) if output else {}
        return Counted(len(predictions.labels), wrong, None, others, Chain((), {}), None, parts, by_label)
    answers = tally.count(predictions.cells[cell], predictions.reference, predictions.labels, start, cap)
    chain = stages.chain(_stages(cell, predictions), predictions.truths)
    return Counted(len(predictions.labels), wrong, answers, others, chain, _host(cell, predictions), parts)


def judge(cell: Cell, predictions: Predictions, policy: Policy) -> Judged:
    """One cell's verdict; outputs that cannot be compared FAIL."""
    try:
        counted = count(cell, predictions, policy)
    except ValueError as error:
        return Judged(Verdict(Outcome.FAIL, (str(error),)))
    return conclude(cell, counted, policy, predictions.class_names)


def conclude(cell: Cell, counted: Counted, policy: Policy, class_names: Sequence[str] = ()) -> Judged:
    """One cell's verdict from what was counted, of however many shards."""
    limits = policy.limits(cell)
    try:
        _check_inputs(counted)
        figures = parity.figures(counted.answers, class_names) if counted.answers else None
        others = tuple(tensors.figures(name, part, limits) for name, part in counted.tensors.items())
        of_labels = labels.figures(counted.labels)
    except ValueError as error:
        return Judged(Verdict(Outcome.FAIL, (str(error),)))
    judgements = [tensors.judge(others, limits, policy.alpha)] if others else []
    if counted.answers and figures:
        judgement = rules.judge(cell, figures, policy)
        judgements.insert(0, replace(judgement, verdict=_diagnosed(judgement.verdict, counted.answers, figures)))
    sliced: tuple[PartParity, ...] = ()
    labelled_parts: tuple[PartParity, ...] = ()
    if of_labels:
        judgement, labelled_parts = labels.judge(of_labels, limits, policy.alpha)
        judgements.append(judgement)
    if counted.slices:
        labelled = bool(counted.answers and counted.answers.labelled)
        spreads = {output.name: output.spread for output in others}
        judgement, sliced = slices.judge(counted.slices, labelled, spreads, limits, policy.alpha)
        judgements.append(judgement)
    outcome = overall(judgement.verdict for judgement in judgements)
    worst = [judgement.verdict for judgement in judgements if judgement.verdict.outcome is outcome]
    return Judged(
        Verdict(outcome, tuple(reason for verdict in worst for reason in verdict.reasons)),
        figures,
        judgements[0].statistics,
        counted.chain.diffs,
        others,
        sliced,
        labelled_parts,
        tuple(check for judgement in judgements for check in judgement.checks),
        counted.host,
    )


def _diagnosed(verdict: Verdict, counted: Tally, figures: Parity) -> Verdict:
    """With the pattern of a mistake, where the answers show one."""
    if swapped := tuple(diagnosis.swaps(counted)):
        return Verdict(Outcome.FAIL, (*swapped, *(verdict.reasons if verdict.outcome is Outcome.FAIL else ())))
    if verdict.outcome is not Outcome.FAIL:
        return verdict
    return Verdict(verdict.outcome, (*verdict.reasons, *diagnosis.patterns(counted, [p.name for p in figures.classes])))


def not_passed(judged: Judged, incomplete: str) -> Judged:
    """INCONCLUSIVE at best if some images were not answered, and why."""
    if not incomplete or judged.verdict.outcome is Outcome.FAIL:
        return judged
    return replace(judged, verdict=Verdict(Outcome.INCONCLUSIVE, (incomplete, *judged.verdict.reasons)))


def accelerated(judged: Judged, ran: Ran | None, limits: Limits) -> Judged:
    """FAIL if the accelerator did not take every operation and the policy asks for that; names those that it left."""
    if not (ran and ran.fell_back and limits.require_full_acceleration):
        return judged
    reason = f"{ran.accelerator} took {ran.taken} of {ran.operations} operations, the CPU ran the others: {ran.left}"
    failed = judged.verdict.reasons if judged.verdict.outcome is Outcome.FAIL else ()
    check = Check("require_full_acceleration", Outcome.FAIL, (reason,))
    return replace(judged, verdict=Verdict(Outcome.FAIL, (reason, *failed)), checks=(check, *judged.checks))


def flipped(predictions: Predictions) -> npt.NDArray[np.int64]:
    """Which images any cell answers unlike the reference, the first MAX_FLIPPED_KEPT."""
    if not predictions.reference.shape[1]:
        return np.empty(0, np.int64)
    expected = predictions.reference.argmax(axis=1)
    changed = np.zeros(len(expected), bool)
    for outputs in predictions.cells.values():
        if outputs.shape == predictions.reference.shape:
            changed |= outputs.argmax(axis=1) != expected
    return np.flatnonzero(changed)[:MAX_FLIPPED_KEPT]


def _slices(cell: Cell, predictions: Predictions) -> dict[str, SliceTally]:
    if predictions.slices is None:
        return {}
    others = {output.name: (output.cells[cell], output.reference) for output in predictions.tensors}
    outputs = predictions.cells[cell], predictions.reference
    changed = predictions.labels_output.changed(cell) if predictions.labels_output else None
    return slices.count(predictions.slices, predictions.truths, *outputs, others, changed)


def _host(cell: Cell, predictions: Predictions) -> Agreement | None:
    if cell not in predictions.host:
        return None
    outputs, scale = predictions.host[cell]
    return agreement.compare(predictions.cells[cell], outputs, scale)


def _wrong_inputs(cell: Cell, predictions: Predictions, start: int) -> WrongInputs:
    expected = predictions.input_means
    if expected is None or cell not in predictions.given_means:
        return WrongInputs(0, Extreme.of_values(np.empty(0), start))
    means, tolerance = predictions.given_means[cell]
    if means.shape != expected.shape:
        raise ValueError(f"{len(means)} inputs for {len(expected)} images")
    off = np.abs(means - expected)
    return WrongInputs(int((~(off <= tolerance)).sum()), Extreme.of_values(off, start, means, expected))


def _check_inputs(counted: Counted) -> None:
    """Raise ValueError if a variant was not given the images, or not as its manifest says that it takes them."""
    if counted.wrong_inputs.images:
        worst = counted.wrong_inputs.worst
        mean, expected = worst.about
        raise ValueError(
            f"wrong input on {counted.wrong_inputs.images} of {counted.images} images: image {worst.image} "
            f"(counted from 0) was given with a mean of {mean:.3f}, its pixels have {expected:.3f}; wrong scale or "
            "zero point, a range that clips, or another image"
        )


def _stages(cell: Cell, predictions: Predictions) -> list[stages.Stage]:
    """Keras, its fold, float32 and the variant on the CPU, as this machine computes them where it does; then the cell
    on the device or accelerator."""
    outputs: list[tuple[str, FloatArray | None]] = [("Keras", predictions.reference)]
    if predictions.folded is not None:
        outputs.append(("folded Keras", predictions.folded))
    host: dict[Cell, FloatArray | None] = {name: real for name, (real, _) in predictions.host.items()}
    on_cpu = Cell(cell.variant)
    host.setdefault(on_cpu, host.get(cell, predictions.cells.get(on_cpu)))
    for name in dict.fromkeys((FLOAT, on_cpu)):
        outputs.append((str(name), host.get(name, predictions.cells.get(name))))
    if cell != on_cpu or cell in predictions.host:
        outputs.append((f"{cell} on the device" if cell in predictions.host else str(cell), predictions.cells[cell]))
    shape = predictions.reference.shape
    return [(n, o) for n, o in outputs if o is not None and o.shape == shape and np.isfinite(o).all()]
