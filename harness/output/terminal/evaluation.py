"""Evaluations on the terminal: figures by class, the confusion matrix, the worst misses."""

from __future__ import annotations

from collections.abc import Sequence

from harness.judge import diagnosis
from harness.output.formats.figures import percent, size
from harness.output.terminal.style import fit, grid
from harness.tools.evaluate import Evaluation
from harness.tools.metrics import Scores
from harness.tools.predict import Predictions

MISSES_SHOWN = 10
WIDEST_MATRIX = 16  # classes; a wider confusion matrix does not fit a terminal


def evaluation(done: Evaluation) -> str:
    """An evaluation: each class, the confusion matrix, the worst misses, the accuracy last."""
    scores = done.scores
    parts = [by_class(scores)]
    if len(scores.confusion) <= WIDEST_MATRIX:
        counts = zip(scores.class_names, scores.confusion.tolist(), strict=True)
        rows = [(truth, *(str(n or ".") for n in row)) for truth, row in counts]
        parts.append("answers by class (rows: truth)\n" + grid(rows, ("", *(row[0] for row in rows))))
    elif scores.confusions:
        pairs = [(truth, answer, str(n)) for truth, answer, n in scores.confusions[:MISSES_SHOWN]]
        parts.append("most frequent confusions\n" + grid(pairs, ("truth", "answer", "images")))
    if misses := done.misses:
        worst = [
            (
                done.data.names[i],
                done.name(done.data.labels[i]),
                done.name(done.answers[i]),
                f"{done.confidences[i]:.2f}",
            )
            for i in misses[:MISSES_SHOWN]
        ]
        shown = f", the {MISSES_SHOWN} most confident" if len(misses) > MISSES_SHOWN else ""
        parts.append(f"misread{shown}\n" + grid(worst, ("image", "truth", "answer", "confidence")))
    if scores.ties:
        parts.append(f"ties: {scores.ties} (two classes share the largest output; the lower one counts as the answer)")
    parts += done.data.notes
    if order := diagnosis.reordered(scores.confusion, scores.class_names):
        parts.append(order)
    skipped = f", {len(done.data.skipped)} skipped" if done.data.skipped else ""
    parts.append(
        f"{done.model}: accuracy {scores.accuracy:.2%}; "
        f"{len(misses)} of {scores.images} images of {done.folder} misread{skipped}; {done.runtime}"
    )
    return fit("\n\n".join(parts))


def predictions(done: Predictions) -> str:
    """Predictions: one row per image, its most likely classes side by side."""
    ranks = len(done.images[0].top)
    headers = ("image", *(head for rank in range(ranks) for head in ("or" if rank else "class", "confidence")))
    rows = [
        (str(seen.image), *(cell for name, confidence in seen.top for cell in (name, f"{confidence:.2%}")))
        for seen in done.images
    ]
    return fit("\n".join([grid(rows, headers), *done.notes, f"{done.model.path}: {done.runtime}"]))


def by_class(scores: Scores) -> str:
    """Precision, recall and F1: one row per class."""
    rows = [
        (c.name, str(c.images), str(c.answers), percent(c.precision), percent(c.recall), percent(c.f1))
        for c in scores.classes
    ]
    return grid(rows, ("class", "images", "answers", "precision", "recall", "F1"))


def comparison(evaluations: Sequence[Evaluation]) -> str:
    """Several models: one row per model."""
    rows = [
        (
            str(evaluation.model),
            percent(evaluation.scores.accuracy),
            str(len(evaluation.misses)),
            size(evaluation.model_bytes),
        )
        for evaluation in evaluations
    ]
    return grid(rows, ("model", "accuracy", "misread", "size"))
