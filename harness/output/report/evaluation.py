"""The page of one evaluation."""

from __future__ import annotations

from functools import partial

from harness.output.report import plots
from harness.output.report.pages import fill, image_uri, picture
from harness.tools.evaluate import Evaluation

MISSES_SHOWN = 120
CONFUSIONS_SHOWN = 12


def render(evaluation: Evaluation) -> str:
    """HTML, kept small: of many misses, classes or confusions it shows the worst, and says so."""
    scores = evaluation.scores
    misses = [
        {
            "name": evaluation.data.names[i],
            "truth": evaluation.name(evaluation.data.labels[i]),
            "answer": evaluation.name(evaluation.answers[i]),
            "confidence": f"{evaluation.confidences[i]:.2f}",
            "uri": None if evaluation.data.spec.input else image_uri(evaluation.data.images[i]),
        }
        for i in evaluation.misses[:MISSES_SHOWN]
    ]
    return fill(
        "evaluation.html",
        evaluation=evaluation,
        scores=scores,
        confusions=scores.confusions[:CONFUSIONS_SHOWN],
        misses=misses,
        by_class=picture(partial(plots.by_class, scores), "Precision, recall and F1 of each class, as in the table."),
        confusion=picture(partial(plots.confusion, scores), _in_words(evaluation)),
    )


def _in_words(evaluation: Evaluation) -> str:
    scores = evaluation.scores
    worst = "; ".join(f"{truth} read as {answer}: {n}" for truth, answer, n in scores.confusions[:CONFUSIONS_SHOWN])
    text = f"Confusion matrix. {scores.right} of {scores.images} images are on the diagonal, read rightly."
    return f"{text} Most frequent beside it: {worst}." if worst else text
