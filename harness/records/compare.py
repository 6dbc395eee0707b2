"""Two stored runs against each other: the later one's answers judged as if the earlier one were the reference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from harness.core.errors import SetupError
from harness.core.outcome import Outcome, Verdict, overall
from harness.judge import policy
from harness.records import evidence, record
from harness.records.evidence import Judged, Predictions
from harness.records.record import Record


@dataclass(frozen=True)
class Comparison:
    """kinds: by kind, the later run's answers against the earlier one's. differences: what else the runs differ in."""

    before: Record
    after: Record
    kinds: dict[str, Judged]
    differences: tuple[str, ...]

    @property
    def outcome(self) -> Outcome:
        return overall(judged.verdict for judged in self.kinds.values())


def compare(before: Path, after: Path, *, anyway: bool = False) -> Comparison:
    """Judge a run against an earlier one, by the later one's policy.

    anyway: also where model or policy differ. Raises SetupError then, if not asked to, and where the images differ.
    """
    earlier, later = record.read(before), record.read(after)
    if earlier.data["sha256"] != later.data["sha256"]:
        raise SetupError(
            f"{before} and {after}: {earlier.data['images']} and {later.data['images']} images, SHA-256 "
            f"{earlier.data['sha256'][:12]} and {later.data['sha256'][:12]}; expected the same images in both"
        )
    differences = []
    if earlier.model["sha256"] != later.model["sha256"]:
        differences.append(f"models {earlier.model['sha256'][:12]} and {later.model['sha256'][:12]}")
    if earlier.policy != later.policy:
        differences.append("policies")
    if differences and not anyway:
        raise SetupError(f"{before} and {after}: other {' and other '.join(differences)}; --anyway compares them")
    return Comparison(earlier, later, _judge(earlier, later, after), tuple(differences))


def _judge(earlier: Record, later: Record, where: Path) -> dict[str, Judged]:
    limits = policy.from_json(dict(later.policy), str(where))
    was, now = evidence.predictions(earlier.arrays), evidence.predictions(later.arrays)
    judged = {}
    for kind in dict.fromkeys((*was.variants, *now.variants)):
        if kind not in now.variants:
            judged[kind] = Judged(Verdict(Outcome.FAIL, ("answered in the earlier run only",)))
        elif kind not in was.variants:
            judged[kind] = Judged(Verdict(Outcome.INCONCLUSIVE, ("answered in the later run only",)))
        else:
            pair = Predictions(
                now.labels, was.variants[kind], None, {kind: now.variants[kind]}, class_names=now.class_names
            )
            judged[kind] = replace(evidence.judge(kind, pair, limits), hops=())
    return judged
