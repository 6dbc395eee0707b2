"""A fleet: devices named by URI or by property, each checked on its own, one verdict for all.

Records and evidence are kept in one folder, so that a second run does only what is missing.
"""

from __future__ import annotations

import fnmatch
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msgspec import structs

from harness.check import sharded
from harness.check.engine import Engine
from harness.check.on_devices import slug
from harness.core import shapes
from harness.core.errors import SetupError
from harness.core.files import check_writable, write_atomic
from harness.core.outcome import Outcome, Verdict, overall
from harness.core.progress import Progress, Step
from harness.core.shapes import Shape
from harness.images import shards
from harness.judge import policy
from harness.records import record
from harness.records.record import Record
from harness.run.latency_plan import LatencyPlan

SCHEMA = "harness-fleet/1"
SUMMARY = "fleet.json"
GB = 1e9


class Where(Shape):
    """Properties of a device, as its host announces them; what is left out may be anything. Texts may have * and ?."""

    uri: str = "*"
    name: str = "*"
    machine: str = "*"  # architecture: aarch64, x86_64
    runtime: str = "*"
    processor: str = "*"
    emulated: bool | None = None
    least_memory_gb: float = 0.0
    most_memory_gb: float | None = None
    least_cores: int = 0
    most_cores: int | None = None

    def holds(self, facts: Mapping[str, Any]) -> bool:
        """Whether a device has them all; a property that is not known does not hold."""
        texts = ("uri", "name", "machine", "runtime", "processor")
        if not all(
            getattr(self, key) == "*" or fnmatch.fnmatch(str(facts.get(key) or ""), getattr(self, key)) for key in texts
        ):
            return False
        if self.emulated is not None and facts.get("emulated") is not self.emulated:
            return False
        most_bytes = None if self.most_memory_gb is None else self.most_memory_gb * GB
        return _within(facts.get("memory_bytes"), self.least_memory_gb * GB, most_bytes) and _within(
            facts.get("cores"), self.least_cores, self.most_cores
        )

    def __str__(self) -> str:
        asked = {key: value for key, value in structs.asdict(self).items() if value != getattr(Where(), key)}
        return ", ".join(f"{key} = {value!r}" for key, value in asked.items())


def _within(value: float | None, low: float, high: float | None) -> bool:
    return (low <= 0 and high is None) or (value is not None and low <= value and (high is None or value <= high))


class Entry(Shape):
    """One [[device]] table: a URI, or properties (`where`) that at least so many devices must have."""

    uri: str | None = None
    where: Where = Where()
    at_least: int = 1
    variants: tuple[str, ...] = ()  # none: the fleet's
    policy: Path | None = None  # none: the fleet's

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
    variants: tuple[str, ...] = ()  # none: all of the manifest
    threads: int = 1  # for latency
    latency: bool = True
    skip_bad: bool = False
    device: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class Member:
    """A device's part of the result. record: none where it could not be judged at all, and `problem` says why."""

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
    def reasons(self) -> list[str]:
        """Of a member that did not pass, each once."""
        if not self.record:
            return [self.problem]
        bad = [cell for cell in self.record.cells if cell.verdict.outcome is not Outcome.PASS]
        return list(dict.fromkeys(f"{cell.name}: {reason}" for cell in bad for reason in cell.verdict.reasons))


def read(path: Path) -> Fleet:
    """Raises SetupError: not TOML, unknown keys, wrong types, no device, one named twice."""
    fleet = shapes.convert(shapes.read_toml(path), Fleet, str(path))
    if not fleet.device:
        raise SetupError(f'{path}: expected at least one [[device]] table, with uri = "..." or where = {{...}}')
    named = [entry.uri for entry in fleet.device if entry.uri]
    if twice := sorted({uri for uri in named if named.count(uri) > 1}):
        raise SetupError(f"{path}: {', '.join(twice)} stands in it twice; expected each device once")
    return fleet


def members(fleet: Fleet, known: Mapping[str, Mapping[str, Any]], where: str) -> list[Member]:
    """The devices that the file means, of those that are known; each by the first table that means it.

    A URI that is not in sight is a member, too: it ends INCONCLUSIVE. Raises SetupError: a property that too few have.
    """
    found: dict[str, Entry] = {entry.uri: entry for entry in fleet.device if entry.uri}
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
            found.setdefault(uri, entry)
    return [Member(uri, entry, known.get(uri, {}), fleet.results / f"{slug(uri)}.json") for uri, entry in found.items()]


def run(
    fleet: Fleet,
    engine: Engine,
    where: str,
    step: Step,
    progress: Progress,
    report: Callable[[Member], None] = lambda member: None,
) -> tuple[list[Member], bool]:
    """Check every device on its own, all at once; the members judged, and whether Ctrl-C ended it.

    report: called with each member when it is done. Raises SetupError before anything is run.
    """
    check_writable(fleet.results)
    meant = members(fleet, engine.devices(), where)
    plan = LatencyPlan(threads=fleet.threads) if fleet.latency else None
    subjects = {}
    for one in meant:
        limits = policy.load(one.entry.policy or fleet.policy)
        kinds = one.entry.variants or fleet.variants or None
        subjects[one.uri] = sharded.subject(fleet.models, fleet.reference, kinds, limits, plan)
    for what in subjects.values():
        shards.open_source(fleet.data, what.spec)  # refused now, not device by device
    stopped = threading.Event()

    def check(member: Member) -> Member:
        try:
            found = sharded.run(
                subjects[member.uri],
                shards.open_source(fleet.data, subjects[member.uri].spec),
                shards.usual_size(subjects[member.uri].spec),
                engine,
                [member.uri],
                member.path,
                step,
                lambda task, done, total: progress(member.uri, done, total),
                skip_bad=fleet.skip_bad,
                stopped=stopped,
            ).record
            record.write(found, member.path)
            judged = replace(member, record=found)
        except SetupError as error:
            judged = replace(member, problem=str(error))
        report(judged)
        return judged

    with ThreadPoolExecutor(len(meant)) as pool:
        running = [pool.submit(check, one) for one in meant]
        try:
            done = [one.result() for one in running]
        except KeyboardInterrupt:
            stopped.set()
            done = [one.result() for one in running]
    write_atomic(fleet.results / SUMMARY, (json.dumps(to_json(done), indent=2) + "\n").encode())
    return done, stopped.is_set()


def outcome(done: Sequence[Member]) -> Outcome:
    """The worst of all devices'."""
    return overall(Verdict(one.outcome, ()) for one in done)


def to_json(done: Sequence[Member]) -> dict[str, Any]:
    """The published shape."""
    return {
        "schema": SCHEMA,
        "verdict": outcome(done),
        "devices": [
            {
                "uri": one.uri,
                "verdict": one.outcome,
                "reasons": one.reasons,
                "facts": dict(one.facts),
                "record": one.path.name if one.record else None,
            }
            for one in done
        ],
    }
