"""From stored predictions to verdicts: the same way for a check, and for its record read again offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.artifacts.manifest import Variant
from harness.artifacts.outputs import FloatArray, dequantize
from harness.core.errors import SetupError
from harness.core.outcome import Outcome, Verdict
from harness.images.dataset import Dataset
from harness.judge import agreement, diagnosis, parity, policy, tally
from harness.judge import rules as verdict
from harness.judge import stages as drift
from harness.judge.agreement import Agreement
from harness.judge.parity import Parity
from harness.judge.policy import Policy
from harness.judge.rules import Check, Statistics
from harness.judge.stages import Chain, Hop
from harness.judge.tally import Extreme, Mergeable, Tally
from harness.records import record
from harness.records.record import Record, VariantRecord
from harness.timing import limits as latency_gate
from harness.timing import timing_verdict
from harness.timing.figures import UNMEASURED, Latency, Timing
from harness.timing.timing_verdict import Run

FLOAT = "float32"  # the variant that the others are made from
HOST_OUTPUTS = "host_outputs"  # of this machine, beside a device's own
FLOAT_NOISE = 1e-5  # of an image's mean, summed up in another order
MOST_IMAGES_KEPT = 500  # of those whose answer changed, for looking at


@dataclass(frozen=True)
class Judged:
    """A variant's verdict and what it rests on; none for what could not be compared."""

    verdict: Verdict
    parity: Parity | None = None
    statistics: Statistics | None = None
    hops: tuple[Hop, ...] = ()
    checks: tuple[Check, ...] = ()
    host: Agreement | None = None


@dataclass(frozen=True)
class Predictions:
    """What was answered to the same images: labels [N]; the reference's outputs, the folded Keras model's where they
    are known, and each variant's, real numbers [N, classes].

    pixels: the mean of each image as float input [N]. fed: by kind, the same of what the variant was given, and by how
    much its input's quantization may move that. host: by kind, this machine's outputs of what a device answered, and
    the size of a step of them.
    """

    labels: npt.NDArray[np.int64]
    reference: FloatArray
    folded: FloatArray | None
    variants: Mapping[str, FloatArray]
    pixels: FloatArray | None = None
    fed: Mapping[str, tuple[FloatArray, float]] = field(default_factory=dict)
    host: Mapping[str, tuple[FloatArray, float]] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()


def predictions(arrays: Mapping[str, npt.NDArray[Any]]) -> Predictions:
    """Of a record's arrays."""
    kinds = [name.removesuffix(".outputs") for name in arrays if name.endswith(".outputs")]

    def dequantized(kind: str, name: str) -> FloatArray:
        scale, zero_point = float(arrays[f"{kind}.scale"]), int(arrays[f"{kind}.zero_point"])
        return dequantize(arrays[f"{kind}.{name}"], scale, zero_point)

    real = {kind: dequantized(kind, "outputs") for kind in kinds}
    host = {
        kind: (dequantized(kind, HOST_OUTPUTS), float(arrays[f"{kind}.scale"]))
        for kind in kinds
        if f"{kind}.{HOST_OUTPUTS}" in arrays
    }
    fed = {
        kind: _fed(arrays[f"{kind}.fed"], float(arrays[f"{kind}.input_scale"]), int(arrays[f"{kind}.input_zero_point"]))
        for kind in kinds
        if f"{kind}.fed" in arrays
    }
    return Predictions(
        labels=arrays["labels"],
        reference=arrays["reference"],
        folded=arrays.get("folded"),
        variants=real,
        pixels=arrays.get("pixels"),
        fed=fed,
        host=host,
        class_names=tuple(map(str, arrays.get("class_names", range(arrays["reference"].shape[1])))),
    )


@dataclass(frozen=True)
class Fed(Mergeable):
    """Inputs as the variant was given them: on how many images they are not the pixels', and the furthest off, with
    its mean as given and as its pixels have it."""

    wrong: int
    worst: Extreme


@dataclass(frozen=True)
class Counted(Mergeable):
    """One variant's answers counted, of one shard or of several added up."""

    fed: Fed
    answers: Tally
    chain: Chain


def count(kind: str, answered: Predictions, start: int = 0) -> Counted:
    """One variant's answers to the images from number `start` on. Raises ValueError where they do not pair."""
    fed = _count_fed(kind, answered, start)
    answers = tally.count(answered.variants[kind], answered.reference, answered.labels, start)
    return Counted(fed, answers, drift.chain(_stages(kind, answered), answered.labels))


def judge(kind: str, answered: Predictions, limits: Policy) -> Judged:
    """One variant's verdict; outputs that cannot be compared FAIL."""
    try:
        counted = count(kind, answered)
    except ValueError as error:
        return Judged(Verdict(Outcome.FAIL, (str(error),)))
    return replace(conclude(kind, counted, limits, answered.class_names), host=_host(kind, answered))


def conclude(kind: str, counted: Counted, limits: Policy, class_names: Sequence[str] = ()) -> Judged:
    """One variant's verdict from what was counted, of however many shards."""
    try:
        _check_fed(counted)
        figures = parity.figures(counted.answers, class_names)
    except ValueError as error:
        return Judged(Verdict(Outcome.FAIL, (str(error),)))
    judgement = verdict.judge(kind, figures, limits)
    judged = judgement.verdict
    if judged.outcome is Outcome.FAIL:
        patterns = diagnosis.patterns(counted.answers, [part.name for part in figures.classes])
        judged = Verdict(judged.outcome, (*judged.reasons, *patterns))
    return Judged(judged, figures, judgement.statistics, counted.chain.hops, judgement.checks)


def not_passed(judged: Judged, incomplete: str) -> Judged:
    """INCONCLUSIVE at best where the images are not all that were to be answered, and why."""
    if not incomplete or judged.verdict.outcome is Outcome.FAIL:
        return judged
    return replace(judged, verdict=Verdict(Outcome.INCONCLUSIVE, (incomplete, *judged.verdict.reasons)))


def _host(kind: str, answered: Predictions) -> Agreement | None:
    if kind not in answered.host:
        return None
    outputs, scale = answered.host[kind]
    return agreement.compare(answered.variants[kind], outputs, scale)


def flipped(answered: Predictions) -> npt.NDArray[np.int64]:
    """Which images any variant answers unlike the reference, the first MOST_IMAGES_KEPT."""
    expected = answered.reference.argmax(axis=1)
    changed = np.zeros(len(expected), bool)
    for outputs in answered.variants.values():
        if outputs.shape == answered.reference.shape:
            changed |= outputs.argmax(axis=1) != expected
    return np.flatnonzero(changed)[:MOST_IMAGES_KEPT]


def again(path: Path, other_policy: Path | None = None) -> Record:
    """A stored run judged anew from its arrays, by its own policy or another.

    Raises SetupError: a damaged or altered run, and one whose own policy now gives another verdict.
    """
    stored = record.read(path)
    limits = policy.load(other_policy) if other_policy else policy.from_json(dict(stored.policy), str(path))
    answered = predictions(stored.arrays)
    variants = tuple(
        _again(variant, answered, limits, stored.data.get("incomplete", "")) for variant in stored.variants
    )
    found = timing_verdict.runs(stored.arrays)
    figures = timing_verdict.figures(found)
    variants = tuple(replace(variant, latency=figures.get(variant.kind)) for variant in variants)
    timing = stored.timing and _timing(stored, stored.timing, found, figures, limits)
    outcome = timing_verdict.overall([variant.verdict for variant in variants], timing)
    if other_policy is None:
        changed = [
            f"{old.kind} {old.verdict.outcome}, its outputs give {new.verdict.outcome}"
            for old, new in zip(stored.variants, variants, strict=True)
            if old.verdict.outcome is not new.verdict.outcome
        ]
        if changed or outcome is not stored.outcome:
            what = "; ".join(changed) or f"{stored.outcome} of all, its variants and their latency give {outcome}"
            raise SetupError(f"{path}: says {what}: altered, or of another version; run harness check again")
    return replace(stored, variants=variants, outcome=outcome, policy=limits.to_json(), timing=timing)


def _timing(
    stored: Record, timed: Timing, found: Sequence[Run], figures: Mapping[str, Latency], limits: Policy
) -> Timing:
    """The latency verdict again. What was not measured stands in the notes; a crash FAILed it."""
    failures = [Verdict(timed.verdict.outcome, (note,)) for note in stored.notes if note.startswith(UNMEASURED)]
    rules = latency_gate.fitting(limits.latency, latency_gate.names(stored.machine, stored.device.get("uri", "local")))
    threads = stored.plan.get("threads", 1)
    return timing_verdict.timing(found, figures, threads, rules, failures, timed.changes, stored.device)


def inputs(data: Dataset, variants: Mapping[str, Variant]) -> dict[str, npt.NDArray[Any]]:
    """Arrays of a record: the classes' names, and what each variant should have been given."""
    arrays: dict[str, npt.NDArray[Any]] = {"class_names": np.array(data.spec.class_names), "pixels": pixels(data)}
    for kind, variant in variants.items():
        arrays[f"{kind}.input_scale"] = np.array(variant.input.scale)
        arrays[f"{kind}.input_zero_point"] = np.array(variant.input.zero_point)
    return arrays


def pixels(data: Dataset) -> npt.NDArray[np.float64]:
    """The mean of each image as float input [N]."""
    return np.concatenate([np.empty(0), *(part.mean(axis=(1, 2, 3), dtype=np.float64) for part in data.batches())])


def _fed(stored: FloatArray, scale: float, zero_point: int) -> tuple[FloatArray, float]:
    return dequantize(stored, scale, zero_point), FLOAT_NOISE + 0.51 * scale


def _count_fed(kind: str, answered: Predictions, start: int) -> Fed:
    if answered.pixels is None or kind not in answered.fed:
        return Fed(0, Extreme.of(np.empty(0), start))
    fed, tolerance = answered.fed[kind]
    if fed.shape != answered.pixels.shape:
        raise ValueError(f"{len(fed)} inputs for {len(answered.pixels)} images")
    off = np.abs(fed - answered.pixels)
    return Fed(int((~(off <= tolerance)).sum()), Extreme.of(off, start, fed, answered.pixels))


def _check_fed(counted: Counted) -> None:
    """Raise ValueError where a variant was not given the images, or not as its manifest says that it takes them."""
    if counted.fed.wrong:
        given, pixels = counted.fed.worst.about
        raise ValueError(
            f"wrong input on {counted.fed.wrong} of {counted.answers.images} images: image {counted.fed.worst.image} "
            f"(counted from 0) was given with a mean of {given:.3f}, its pixels have {pixels:.3f}; wrong scale or "
            "zero point, a range that clips, or another image"
        )


def _again(variant: VariantRecord, answered: Predictions, limits: Policy, incomplete: str) -> VariantRecord:
    if variant.kind in answered.variants:
        judged = not_passed(judge(variant.kind, answered, limits), incomplete)
        return replace(variant, **vars(judged))
    if variant.verdict.outcome is Outcome.PASS:
        return replace(variant, verdict=Verdict(Outcome.FAIL, ("no outputs: nothing to compare",)))
    return variant


def _stages(kind: str, answered: Predictions) -> list[drift.Stage]:
    """Keras, its fold, float32, the variant; then the variant as the device computes it, the others as this machine."""
    stages: list[tuple[str, FloatArray | None]] = [("Keras", answered.reference)]
    if answered.folded is not None:
        stages.append(("folded Keras", answered.folded))
    host = {name: outputs for name, (outputs, _) in answered.host.items()}
    for name in dict.fromkeys((FLOAT, kind)):
        stages.append((name, host.get(name, answered.variants.get(name))))
    if kind in host:
        stages.append((f"{kind} on the device", answered.variants[kind]))
    shape = answered.reference.shape
    return [(n, o) for n, o in stages if o is not None and o.shape == shape and np.isfinite(o).all()]
