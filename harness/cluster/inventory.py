"""The devices of this host, and what is known of each: what a lab's properties ask of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import structs

from harness.run import worker
from harness.run.devices import listing, local

Facts = dict[str, dict[str, Any]]


def look(named: Sequence[str] = (), host: str | None = None) -> tuple[Facts, list[str]]:
    """Facts by URI of this machine, all that adb knows and the devices named; and the problems of the others.

    host: this machine's name in a lab, where it is local://host.
    """
    found: Facts = {}
    problems = []
    for seen in listing.look([uri for uri in named if uri != local.URI]):
        if seen.probe is None:
            problems.append(seen.problem)
            continue
        facts = {key: value for key, value in structs.asdict(seen.probe).items() if key not in ("uri", "state")}
        if seen.uri == local.URI:
            facts |= {"runtime": worker.find_runtime()[1], "processor": worker.processor()}
        found[f"{local.URI}://{host}" if host and seen.uri == local.URI else seen.uri] = facts
    return found, problems
