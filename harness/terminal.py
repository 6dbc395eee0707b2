"""What a person sees on the terminal: steps and bars on standard error, the result on standard output."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from tabulate import tabulate
from tqdm import tqdm

from harness import drift
from harness.evaluate import Evaluation
from harness.explain import Explanation, short
from harness.flips import Flip
from harness.metrics import Scores
from harness.record import Record, VariantRecord
from harness.verdict import points

MISSES_SHOWN = 10
LAYERS_SHOWN = 10
WIDEST_MATRIX = 16  # classes; a wider confusion matrix does not fit a terminal


if TYPE_CHECKING:
    from harness.compare import Comparison
    from harness.predict import Predictions
    from harness.selftest import Case


@contextmanager
def step(name: str) -> Iterator[None]:
    """Names a step and counts its seconds while it runs; silent when piped."""
    if not sys.stderr.isatty():
        yield
        return
    begin = time.monotonic()
    print(f"  {name} ...", end="", file=sys.stderr, flush=True)
    done = False
    try:
        yield
        done = True
    finally:
        print(f" {time.monotonic() - begin:.1f} s" if done else "", file=sys.stderr, flush=True)


class Bars:
    """One bar for each task, called with its name, what is done and the total; use with `with`."""

    def __enter__(self) -> Self:
        self._bar: tqdm[Any] | None = None
        self._task = ""
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, task: str, done: int, total: int) -> None:
        if task != self._task or self._bar is None:
            self.__exit__()
            self._bar = tqdm(total=total, desc=f"  {task}", disable=not sys.stderr.isatty())
            self._task = task
        self._bar.total = total
        self._bar.update(done - self._bar.n)


HEADERS = ("variant", "verdict", "accuracy", "drop", "interval", "flips", "max |dp|", "size", "median", "p90")


def table(record: Record) -> str:
    """The record for a person: one row a variant, the reasons, the verdict last."""
    rows = [_row(variant) for variant in record.variants]
    lines = [
        tabulate(rows, HEADERS, tablefmt="simple", disable_numparse=True, colalign=("left", "left", *["right"] * 8))
    ]
    lines.append("")
    for variant in record.variants:
        lines.append(f"{variant.kind}: {variant.verdict.outcome}: {'; '.join(variant.verdict.reasons)}")
        if worst := drift.lost_most(variant.hops):
            lines.append(
                f"  lost most at {worst.source} -> {worst.target}: {worst.flips} flips, "
                f"mean |dp| {worst.mean_probability_difference:.4f}"
            )
    lines += _test_set(record)
    lines += record.notes
    data, machine = record.data, record.machine
    lines.append(
        f"{data['images']} images of {data['folder']}, {len(data['skipped'])} skipped; "
        f"{machine.get('runtime', 'runtime unavailable')}, {machine.get('machine', '')}, "
        f"{record.plan['threads']} thread{'s' if record.plan['threads'] > 1 else ''} for latency"
    )
    lines.append(f"verdict: {record.outcome}")
    return "\n".join(lines)


def cases(found: Sequence[Case]) -> str:
    """The self-test for a person: one row a case, how many held last."""
    rows = [
        ("ok" if case.held else "WRONG", case.name, case.expected, case.given, textwrap.shorten(case.shown, 80))
        for case in found
    ]
    held = sum(case.held for case in found)
    shown = tabulate(rows, ("", "case", "expected", "given", "reason"), tablefmt="simple", disable_numparse=True)
    return f"{shown}\n\n{held} of {len(found)} cases as expected"


def runs(found: Comparison) -> str:
    """Two runs for a person: the later beside the earlier, kind by kind."""
    rows = []
    for kind, judged in found.kinds.items():
        parity, proven = judged.parity, judged.statistics
        figures = ("-",) * 5
        if parity and proven:
            low, high = proven.drop_interval.low, proven.drop_interval.high
            figures = (
                f"{parity.reference_accuracy:.2%}",
                f"{parity.accuracy:.2%}",
                f"{points(low)} to {points(high)}",
                f"{parity.flips} (-{parity.changes.broken} +{parity.changes.fixed})",
                f"{parity.largest_probability_difference:.4f}",
            )
        rows.append((kind, str(judged.verdict.outcome), *figures))
    lines = [_grid(rows, ("variant", "verdict", "before", "after", "drop", "flips", "max |dp|")), ""]
    lines += [f"{kind}: {one.verdict.outcome}: {'; '.join(one.verdict.reasons)}" for kind, one in found.kinds.items()]
    lines += [f"other {difference}" for difference in found.differences]
    lines.append(f"{found.after.data['images']} images; {found.before.started} and {found.after.started}")
    lines.append(f"verdict: {found.outcome}")
    return "\n".join(lines)


def flips(found: Sequence[Flip]) -> str:
    """The images whose answer changed: broken, fixed and others, of each variant."""
    rows = [
        (
            flip.kind,
            flip.sort,
            flip.name,
            flip.truth,
            f"{flip.expected} at {flip.expected_confidence:.2f}",
            f"{flip.answer} at {flip.answer_confidence:.2f}",
        )
        for flip in found
    ]
    if not rows:
        return "no answer changed"
    return tabulate(
        rows, ("variant", "", "image", "truth", "Keras", "variant"), tablefmt="simple", disable_numparse=True
    )


def explanation(found: Explanation) -> str:
    """The layers that lose most, and the likely causes."""
    rows = [
        (
            short(layer.name),
            layer.operation,
            f"{layer.lost_db:.1f} dB",
            f"{layer.snr_db:.1f} dB",
            f"{layer.cosine:.4f}",
            _share(layer.clipped),
            _share(layer.used),
        )
        for layer in found.ranked[:LAYERS_SHOWN]
    ]
    shown = tabulate(
        rows,
        ("layer", "operation", "lost", "signal to noise", "cosine", "clipped", "range used"),
        tablefmt="simple",
        disable_numparse=True,
        colalign=("left", "left", *["right"] * 5),
    )
    causes = found.causes or ("no cause stands out: no range clips, the input fits, no class is dead",)
    return "\n".join([shown, "", *causes, f"{len(found.layers)} layers beside float32's on {found.images} images"])


def _test_set(record: Record) -> list[str]:
    """What the images can show whatever the variant."""
    found = next(((v.statistics, v.parity) for v in record.variants if v.statistics and v.parity), None)
    if not found:
        return []
    proven, parity = found
    low, high = proven.reference_accuracy.low, proven.reference_accuracy.high
    interval = f"{proven.confidence:.0%} interval {low:.2%} to {high:.2%}"
    return [
        f"reference: accuracy {parity.reference_accuracy:.2%}, {interval}",
        f"the smallest drop that {parity.images} images can certify: {points(proven.smallest_certifiable_drop)} points",
    ]


def _row(variant: VariantRecord) -> tuple[str, ...]:
    parity, proven, times = variant.parity, variant.statistics, variant.latency
    figures = ("-",) * 5
    if parity:
        changes = parity.changes
        figures = (
            f"{parity.accuracy:.2%}",
            points((changes.broken - changes.fixed) / parity.images),
            f"{points(proven.drop_interval.low)} to {points(proven.drop_interval.high)}" if proven else "-",
            f"{parity.flips} (-{changes.broken} +{changes.fixed})",
            f"{parity.largest_probability_difference:.4f}",
        )
    return (
        variant.kind,
        str(variant.verdict.outcome),
        *figures,
        f"{variant.size_bytes / 1e6:.2f} MB",
        _milliseconds(times.median if times else None),
        _milliseconds(times.p90 if times else None),
    )


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.2f} ms"


def evaluation(done: Evaluation) -> str:
    """An evaluation for a person: each class, the confusion matrix, the worst misses, the accuracy last."""
    scores = done.scores
    parts = [by_class(scores)]
    if len(scores.confusion) <= WIDEST_MATRIX:
        counts = zip(scores.class_names, scores.confusion.tolist(), strict=True)
        rows = [(truth, *(str(n or ".") for n in row)) for truth, row in counts]
        parts.append("answers by class (rows: truth)\n" + _grid(rows, ("", *(row[0] for row in rows))))
    elif scores.confusions:
        pairs = [(truth, answer, str(n)) for truth, answer, n in scores.confusions[:MISSES_SHOWN]]
        parts.append("most frequent confusions\n" + _grid(pairs, ("truth", "answer", "images")))
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
        parts.append(f"misread{shown}\n" + _grid(worst, ("image", "truth", "answer", "confidence")))
    if scores.ties:
        parts.append(f"ties: {scores.ties} (two classes share the largest output; the lower one counts as the answer)")
    parts += done.data.notes
    skipped = f", {len(done.data.skipped)} skipped" if done.data.skipped else ""
    parts.append(
        f"{done.model}: accuracy {scores.accuracy:.2%}; "
        f"{len(misses)} of {scores.images} images of {done.folder} misread{skipped}; {done.runtime}"
    )
    return "\n\n".join(parts)


def predictions(done: Predictions) -> str:
    """What a model sees: a row an image, its likeliest classes side by side."""
    ranks = len(done.images[0].top)
    headers = ["image", *(head for rank in range(ranks) for head in ("class" if not rank else "or", "confidence"))]
    rows = [
        (str(one.image), *(cell for name, confidence in one.top for cell in (name, f"{confidence:.2%}")))
        for one in done.images
    ]
    align = ("left", *("left", "right") * ranks)
    shown = tabulate(rows, headers, tablefmt="simple", disable_numparse=True, colalign=align)
    return "\n".join([shown, *done.notes, f"{done.model.path}: {done.runtime}"])


def by_class(scores: Scores) -> str:
    """Precision, recall and F1: one row a class."""
    rows = [
        (c.name, str(c.images), str(c.answers), _share(c.precision), _share(c.recall), _share(c.f1))
        for c in scores.classes
    ]
    return _grid(rows, ("class", "images", "answers", "precision", "recall", "F1"))


def comparison(evaluations: Sequence[Evaluation]) -> str:
    """Several models: one row each."""
    rows = [
        (str(one.model), _share(one.scores.accuracy), str(len(one.misses)), f"{one.model_bytes / 1e6:.2f} MB")
        for one in evaluations
    ]
    return _grid(rows, ("model", "accuracy", "misread", "size"))


def _grid(rows: Sequence[tuple[str, ...]], headers: tuple[str, ...]) -> str:
    align = ("left", *["right"] * (len(headers) - 1))
    return tabulate(rows, headers, tablefmt="simple", disable_numparse=True, colalign=align)


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"
