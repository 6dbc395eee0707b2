"""A fleet: devices named by address or by property, each checked on its own, one verdict for all.

Records and evidence are kept in one folder, so that a second run does only what is missing.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, structs

from harness.check import pipeline, subject
from harness.check.engine import Engine, Facts
from harness.check.pipeline import Check, CheckedRun
from harness.check.references import KerasReferences
from harness.core import shapes
from harness.core.errors import SetupError
from harness.core.files import check_writable, slug, write_atomic
from harness.core.outcome import Outcome, Verdict, overall
from harness.core.progress import Bars, Step
from harness.core.shapes import Shape
from harness.images import labels, shards, slices
from harness.judge import policy
from harness.records import record
from harness.records.record import Record
from harness.run.latency_plan import LatencyPlan

SUMMARY = "fleet.json"
GB = 1e9
TEXTS = ("uri", "name", "machine", "runtime", "processor")

AtLeastOne = Annotated[int, Meta(ge=1, description="at least 1")]


class Where(Shape):
    """Properties of a device, as its host announces them. One left out matches anything; texts may have * and ?."""

    uri: str = "*"
    name: str = "*"
    machine: str = "*"  # architecture: aarch64, x86_64
    runtime: str = "*"
    processor: str = "*"
    emulated: bool | None = None
    min_memory_gb: float | None = None
    max_memory_gb: float | None = None
    min_cores: int | None = None
    max_cores: int | None = None

    def holds(self, facts: Facts) -> bool:
        """Whether a device has all of them. An unknown property does not match."""
        for key in TEXTS:
            pattern = getattr(self, key)
            if pattern != "*" and not fnmatch.fnmatch(str(facts.get(key) or ""), pattern):
                return False
        if self.emulated is not None and facts.get("emulated") is not self.emulated:
            return False
        memory = facts["memory_bytes"] / GB if facts.get("memory_bytes") else None
        return _within(memory, self.min_memory_gb, self.max_memory_gb) and _within(
            facts.get("cores"), self.min_cores, self.max_cores
        )

    def __str__(self) -> str:
        changed = {key: value for key, value in structs.asdict(self).items() if value != getattr(Where(), key)}
        return ", ".join(f"{key} = {value!r}" for key, value in changed.items())


def _within(value: float | None, low: float | None, high: float | None) -> bool:
    if low is None and high is None:
        return True
    return value is not None and (low is None or value >= low) and (high is None or value <= high)


class Entry(Shape):
    """One [[device]] table: an address, or properties that at least so many devices must have."""

    uri: str | None = None
    where: Where = Where()
    at_least: AtLeastOne = 1
    variants: tuple[str, ...] = ()  # empty: the fleet's
    policy: Path | None = None  # None: the fleet's

    def __post_init__(self) -> None:
        if (self.uri is None) == (self.where == Where()):
            raise ValueError("expected either uri or where = {...}, to say which device")


class Fleet(Shape):
    """A fleet file. Paths are from the current folder."""

    models: Path = Path("models/tflite")
    reference: Path = Path("models/resnet164.keras")
    data: Path = Path("data/test")
    results: Path = Path("runs/fleet")
    policy: Path | None = None
    variants: tuple[str, ...] = ()  # empty: all of the manifest
    threads: AtLeastOne = 1  # for latency
    latency: bool = True
    skip_bad: bool = False
    unlabelled: bool = False
    slice_by: str = ""  # a column, or a pattern on names; empty: not divided
    table: Path | None = None  # that has the column; None: the images' own
    device: tuple[Entry, ...] = ()

    def __post_init__(self) -> None:
        if not self.device:
            raise ValueError('expected at least one [[device]] table, with uri = "..." or where = {...}')


class Member(Shape):
    """A device's part of the result. record: None if it could not be judged at all, and `problem` says why."""

    uri: str
    entry: Entry
    facts: Mapping[str, Any]
    path: Path
    record: Record | None = None
    problem: str = ""

    @property
    def outcome(self) -> Outcome:
        return self.record.outcome if self.record else Outcome.INCONCLUSIVE

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why a member did not pass, each reason once."""
        if not self.record:
            return (self.problem,)
        failed = [cell for cell in self.record.cells if cell.verdict.outcome is not Outcome.PASS]
        return tuple(dict.fromkeys(f"{cell.name}: {reason}" for cell in failed for reason in cell.verdict.reasons))


class MemberFile(Shape):
    """A member in the summary. record: its file's name."""

    uri: str
    verdict: Outcome
    reasons: tuple[str, ...]
    facts: Mapping[str, Any]
    record: str | None


class Summary(Shape, tag_field="schema", tag="harness-fleet/1"):
    """The summary file of a fleet."""

    verdict: Outcome
    devices: tuple[MemberFile, ...]


def read(path: Path) -> Fleet:
    """Raises SetupError: not TOML, unknown keys, wrong types, no device, one named twice."""
    fleet = shapes.convert(shapes.read_toml(path), Fleet, str(path))
    named = [entry.uri for entry in fleet.device if entry.uri]
    if repeated := sorted({uri for uri in named if named.count(uri) > 1}):
        raise SetupError(f"{path}: {', '.join(repeated)} stands in it twice; expected each device once")
    return fleet


def members(fleet: Fleet, known: Mapping[str, Facts], where: str) -> list[Member]:
    """The known devices that match the file, each with the first table that matches it.

    An address that is not in sight is a member, too: it ends INCONCLUSIVE. Raises SetupError: too few devices have some
    properties.
    """
    entries = {entry.uri: entry for entry in fleet.device if entry.uri}
    for number, entry in enumerate(fleet.device, start=1):
        if entry.uri:
            continue
        fitting = [uri for uri, facts in known.items() if entry.where.holds({**facts, "uri": uri})]
        if len(fitting) < entry.at_least:
            raise SetupError(
                f"{where}: device {number}: {len(fitting)} devices have {entry.where}, expected at least "
                f"{entry.at_least}; there are {', '.join(sorted(known)) or 'none'}"
            )
        for uri in fitting:
            entries.setdefault(uri, entry)
    return [
        Member(uri, entry, known.get(uri, {}), fleet.results / f"{slug(uri)}.json") for uri, entry in entries.items()
    ]


def run(fleet: Fleet, engine: Engine, where: str, step: Step, bars: Bars) -> list[Member]:
    """Check every device on its own. Raises SetupError before anything is run."""
    check_writable(fleet.results)
    listed = members(fleet, engine.devices(), where)
    checks = [_check(fleet, member) for member in listed]
    with KerasReferences(fleet.reference, fleet.models, step) as references:
        results = pipeline.run_all(checks, engine, references, bars)
    judged = []
    for member, result in zip(listed, results, strict=True):
        if isinstance(result, CheckedRun):
            record.write(result.record, member.path)
            judged.append(structs.replace(member, record=result.record))
        else:
            judged.append(structs.replace(member, problem=str(result or "interrupted before it was run")))
    devices = tuple(
        MemberFile(entry.uri, entry.outcome, entry.reasons, entry.facts, entry.path.name if entry.record else None)
        for entry in judged
    )
    write_atomic(fleet.results / SUMMARY, shapes.encode(Summary(outcome(judged), devices)))
    return judged


def outcome(judged: Sequence[Member]) -> Outcome:
    """The worst outcome of all devices."""
    return overall(Verdict(member.outcome, ()) for member in judged)


def _check(fleet: Fleet, member: Member) -> Check:
    limits = policy.load(member.entry.policy or fleet.policy)
    kinds = member.entry.variants or fleet.variants or None
    plan = LatencyPlan(threads=fleet.threads) if fleet.latency else None
    what = subject.load(fleet.models, fleet.reference, limits, kinds, plan)
    source = shards.open_source(fleet.data, what.spec, labelled=not fleet.unlabelled)
    divided = slices.divide(source, fleet.slice_by, fleet.table) if fleet.slice_by else None
    known = what.spec.label_names and not fleet.unlabelled
    return Check(
        what,
        source,
        (member.uri,),
        member.path,
        skip_bad=fleet.skip_bad,
        keep_evidence=True,
        slices=divided,
        labels=labels.read(source, what.spec.label_names, fleet.table) if known else None,
    )
