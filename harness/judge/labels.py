"""Several independent labels, each judged as two classes, absent and present: any of them can fail a variant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from harness.artifacts.outputs import FloatArray, as_classes
from harness.core.cell import Cell
from harness.core.outcome import SEVERITY, Outcome, Verdict
from harness.judge import intervals, parity, rules, tally
from harness.judge.parity import Parity, PartParity, worst_first
from harness.judge.policy import Limits
from harness.judge.rules import NO_SCIPY, Check, Judgement, advice
from harness.judge.tally import Constant, Tally

CLASSES = ("absent", "present")
HARMLESS = 0.01  # a difference of a probability; of a rare label int8 gives one number to all images
MAX_ASKED = 12  # rules of labels, for how many images would decide them
Outcomes = Mapping[str, tuple[Outcome, list[str]]]  # by rule


@dataclass(frozen=True)
class LabelsOutput:
    """Probabilities [N, labels] of the reference and of each cell. truths: 0 or 1 [N, labels]; UNLABELLED if not
    known."""

    names: tuple[str, ...]
    truths: npt.NDArray[np.int64]
    reference: FloatArray
    cells: Mapping[Cell, FloatArray]

    def changed(self, cell: Cell) -> npt.NDArray[np.bool_]:
        """The images on which any label flips [N]."""
        return np.asarray(((self.cells[cell] > 0.5) != (self.reference > 0.5)).any(axis=1))


def count(output: LabelsOutput, cell: Cell, start: int, cap: float) -> dict[str, Tally]:
    """A tally of each label. Raises ValueError if outputs, reference and truths do not pair."""
    outputs, expected = output.cells[cell], output.reference
    if not outputs.shape == expected.shape == output.truths.shape:
        raise ValueError(f"{list(outputs.shape)} labels and {list(expected.shape)} of the reference do not pair")
    return {
        name: tally.count(
            as_classes(outputs[:, [place]]), as_classes(expected[:, [place]]), output.truths[:, place], start, cap
        )
        for place, name in enumerate(output.names)
    }


def figures(counted: Mapping[str, Tally]) -> dict[str, Parity]:
    """Raises ValueError as `parity.figures` does, for any label."""
    parities = {}
    for name, part in counted.items():
        if part.max_difference < HARMLESS:
            part = replace(part, constant=Constant(False, None))
        try:
            parities[name] = parity.figures(part, CLASSES)
        except ValueError as error:
            raise ValueError(f"label {name}: {error}") from error
    return parities


def judge(parities: Mapping[str, Parity], limits: Limits, alpha: float) -> tuple[Judgement, tuple[PartParity, ...]]:
    """The verdict on all labels, and each of them, the worst first. For failing, alpha is shared out over the labels;
    to pass, all must hold."""
    try:
        outcomes = {name: _outcomes(part, limits, alpha, len(parities)) for name, part in parities.items()}
        parts = sorted(
            (_part(name, part, outcomes[name], alpha, len(parities)) for name, part in parities.items()),
            key=worst_first,
        )
    except ModuleNotFoundError:
        return Judgement(Verdict(Outcome.INCONCLUSIVE, (NO_SCIPY,)), None), ()
    by_rule = {rule: None for of_label in outcomes.values() for rule in of_label}
    names = [part.name for part in parts]
    checks = tuple(_check(rule, names, outcomes) for rule in rules.RULES if rule in by_rule)
    outcome = max((check.outcome for check in checks), key=SEVERITY.index)
    reasons = [reason for check in checks if check.outcome is outcome for reason in check.reasons]
    if not all(part.labelled for part in parities.values()):
        reasons.append("without the images' labels accuracy is not judged")
    if outcome is Outcome.INCONCLUSIVE:
        open_ones = [(rule, name) for name in names for rule, (o, _) in outcomes[name].items() if o is outcome]
        needed = [rules.images_needed(rule, parities[name], limits, alpha) for rule, name in open_ones[:MAX_ASKED]]
        reasons.append(advice(needed, parts[0].images))
    return Judgement(Verdict(outcome, tuple(reasons)), None, checks), tuple(parts)


def _outcomes(part: Parity, limits: Limits, alpha: float, labels: int) -> Outcomes:
    """By rule: fails only if it does at a share of alpha."""
    outcomes = {}
    for rule, judge_rule in rules.RULES.items():
        if rule in rules.OF_LABELS and not part.labelled:
            continue
        outcome, reasons = judge_rule(part, limits, alpha)
        if outcome is Outcome.FAIL and judge_rule(part, limits, alpha / labels)[0] is not outcome:
            outcome = Outcome.INCONCLUSIVE
        if reasons:  # else nothing is limited
            outcomes[rule] = outcome, reasons
    return outcomes


def _part(name: str, part: Parity, outcomes: Outcomes, alpha: float, labels: int) -> PartParity:
    changes, shared = part.changes, alpha / labels
    return PartParity(
        name=name,
        images=part.images,
        outcome=max((outcome for outcome, _ in outcomes.values()), key=SEVERITY.index),
        accuracy=part.accuracy,
        reference_accuracy=part.reference_accuracy,
        drop=(changes.regressions - changes.improvements) / part.images if part.labelled else None,
        drop_interval=intervals.drop(changes, part.images, alpha, shared) if part.labelled else None,
        flips=part.flips,
        flip_share=intervals.share(part.flips_best, part.flips_worst, part.images, alpha, shared),
    )


def _check(rule: str, names: list[str], outcomes: Mapping[str, Outcomes]) -> Check:
    """names: the worst first."""
    of_rule = ((name, *outcomes[name][rule]) for name in names)
    parts = [(outcome, f"label {name}: {reasons[0]}", name) for name, outcome, reasons in of_rule]
    return rules.check_parts(rule, "labels", parts)
