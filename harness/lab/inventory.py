"""The devices of this host, and what is known of each: what a lab's properties ask of."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import worker
from harness.devices import listing, local

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
        facts = {key: value for key, value in seen.probe.to_json().items() if key not in ("uri", "state")}
        if seen.uri == local.URI:
            facts |= {"runtime": worker.machine()["runtime"], "processor": _processor()}
        found[f"{local.URI}://{host}" if host and seen.uri == local.URI else seen.uri] = facts
    return found, problems


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open() as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unavailable"
