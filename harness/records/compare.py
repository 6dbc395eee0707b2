"""Two stored runs compared: the later one's predictions judged as if the earlier one were the reference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from harness.artifacts.outputs import FloatArray
from harness.core.cell import Cell
from harness.core.errors import SetupError
from harness.core.outcome import Outcome, Verdict, overall
from harness.judge import predictions
from harness.judge.predictions import Judged, Predictions
from harness.records import record
from harness.records.record import Record


@dataclass(frozen=True)
class Comparison:
    """cells: the later run's predictions against the earlier one's. differences: in what else the runs differ."""

    before: Record
    after: Record
    cells: dict[Cell, Judged]
    differences: tuple[str, ...]

    @property
    def outcome(self) -> Outcome:
        return overall(judged.verdict for judged in self.cells.values())


def compare(before: Path, after: Path, *, anyway: bool = False) -> Comparison:
    """Judge a run against an earlier one, by the later one's policy.

    anyway: even if model or policy differ. Raises SetupError if they differ otherwise, and if the images differ.
    """
    earlier, later = record.read(before), record.read(after)
    if earlier.data.sha256 != later.data.sha256:
        raise SetupError(
            f"{before} and {after}: {earlier.data.images} and {later.data.images} images, SHA-256 "
            f"{earlier.data.sha256[:12]} and {later.data.sha256[:12]}; expected the same images in both"
        )
    differences = []
    if earlier.model.sha256 != later.model.sha256:
        differences.append(f"models {earlier.model.sha256[:12]} and {later.model.sha256[:12]}")
    if earlier.policy != later.policy:
        differences.append("policies")
    if differences and not anyway:
        raise SetupError(
            f"{before} and {after}: different {' and different '.join(differences)}; --anyway compares them"
        )
    return Comparison(earlier, later, _judge(earlier, later), tuple(differences))


def _labels_of(answers: Predictions, cell: Cell) -> FloatArray:
    return answers.labels_output.cells[cell] if answers.labels_output else np.empty((0, 0))


def _judge(earlier: Record, later: Record) -> dict[Cell, Judged]:
    before, after = earlier.arrays.predictions(), later.arrays.predictions()
    judged = {}
    for cell in dict.fromkeys((*before.cells, *after.cells)):
        if cell not in after.cells:
            judged[cell] = Judged(Verdict(Outcome.FAIL, ("only the earlier run has predictions",)))
        elif cell not in before.cells:
            judged[cell] = Judged(Verdict(Outcome.INCONCLUSIVE, ("only the later run has predictions",)))
        else:
            pair = Predictions(
                after.labels,
                before.cells[cell],
                None,
                {cell: after.cells[cell]},
                class_names=after.class_names,
                slices=after.slices,
                labels_output=after.labels_output and replace(after.labels_output, reference=_labels_of(before, cell)),
                tensors=tuple(
                    replace(output, reference=earlier_output.cells[cell])
                    for output, earlier_output in zip(after.tensors, before.tensors, strict=True)
                ),
            )
            judged[cell] = replace(predictions.judge(cell, pair, later.policy), stages=())
    return judged
