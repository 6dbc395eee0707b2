"""What a verdict means and what to do next, in a sentence."""

from __future__ import annotations

from collections.abc import Iterator

from harness.core.outcome import Outcome
from harness.output.formats import figures
from harness.output.formats.recommend import recommend
from harness.output.formats.runs import Runs
from harness.records.record import CellRecord, Record
from harness.run.job import UNAVAILABLE, Ran
from harness.timing.figures import OverTime
from harness.timing.machine_state import MIN_PROCESSOR

MARKS = {Outcome.PASS: "\N{WHITE HEAVY CHECK MARK}", Outcome.FAIL: "\N{CROSS MARK}", Outcome.INCONCLUSIVE: "\u2754"}


def sentence(runs: Runs) -> str:
    """The verdict for a person who reads nothing else."""
    images = f"{runs.records[0].data.images:,} images"
    processor = runs.records[0].machine.machine
    where = processor if len(runs.devices) == 1 else f"{len(runs.devices)} devices"
    by_outcome = {
        outcome: list(dict.fromkeys(row.name for _, _, row in runs.rows() if row.verdict.outcome is outcome))
        for outcome in Outcome
    }
    if failed := by_outcome[Outcome.FAIL]:
        does = "does" if len(failed) == 1 else "do"
        return f"{_listed(failed)} {does} not answer like the Keras model ({images}, {where})."
    if open_ones := by_outcome[Outcome.INCONCLUSIVE]:
        is_ = "is" if len(open_ones) == 1 else "are"
        return f"{_listed(open_ones)} {is_} neither proven nor refuted by this run ({images}, {where})."
    if runs.outcome is not Outcome.PASS:
        return f"Every variant answers like the Keras model ({images}, {where}), but its speed does not pass."
    subjects = {1: "The variant answers", 2: "Both variants answer"}
    subject = subjects.get(len(runs.cells), f"All {len(runs.cells)} variants answer")
    return f"{subject} like the Keras model, within the policy's limits ({images}, {where})."


def to_ship(runs: Runs) -> list[str]:
    """One sentence for each device and accelerator: which variant to ship, and why."""
    several = len(runs.devices) > 1
    return [
        f"{f'{best.device}, ' if several else ''}{best.accelerator}: ship {best.variant or 'none'}, {best.reason}"
        for best in recommend(runs)
    ]


def what_ran(ran: Ran) -> str:
    """What ran a cell, for a person: runtime, adapter, driver, precision, and how much of the model it took."""
    parts = [part for part in (ran.runtime, ran.adapter, ran.driver, ran.precision) if part]
    if ran.software:
        parts.append("in software (its answers count, its time is not measured)")
    if ran.taken is not None:
        rest = f" (not {', '.join(ran.not_taken)})" if ran.not_taken else ""
        parts.append(f"{ran.taken} of {ran.operations} operations{rest}")
    if ran.fell_back:
        parts.append("fell back to the CPU")
    return f"ran on {', '.join([*parts, *ran.warnings, *([ran.problem] if ran.problem else [])])}"


def courses(record: Record) -> list[tuple[str, OverTime]]:
    """What became of each cell in its sustained run."""
    modes = [(cell.name, cell.latency_modes.get("sustained")) for cell in record.cells]
    return [(name, latency.over_time) for name, latency in modes if latency and latency.over_time]


def sustained(record: Record) -> Iterator[str]:
    """The same in a sentence each."""
    for name, course in courses(record):
        length = course.bucket_s * len(course.buckets)
        first, seen = course.buckets[0], []
        begin = "minute" if course.bucket_s >= 60 else f"{course.bucket_s:.2g} s"
        text = f"{name} sustained for {_time(length)}: {figures.duration(first.mean)} in the first {begin}"
        if course.plateau_s is None or course.slowdown is None:
            text += ", and not settled by the end"
        else:
            level = figures.duration(first.mean * course.slowdown)
            text += f", {level} ({course.slowdown:.2f} times) on the plateau, from {_time(course.plateau_s)} on"
        for key, unit, scale in (("temperature_c", "°C", 1.0), ("frequency_hz", "GHz", 1e-9)):
            if values := [value for bucket in course.buckets if (value := getattr(bucket, key)) is not None]:
                seen.append(f"{min(values) * scale:.3g} to {max(values) * scale:.3g} {unit}")
        if (share := min(bucket.core_share for bucket in course.buckets)) < MIN_PROCESSOR:
            seen.append(f"it had a core {share:.0%} of the time at worst")
        if course.throttled_s is not None:
            seen.append(f"throttled from {_time(course.throttled_s)} on")
        elif all(bucket.throttled is None for bucket in course.buckets):
            seen.append(f"whether it is throttled is {UNAVAILABLE}")
        else:
            seen.append("not throttled")
        yield "; ".join([text, *seen])


def modes(record: Record) -> Iterator[str]:
    """Each other measure of speed, a sentence for each cell."""
    yield from sustained(record)
    for cell in record.cells:
        yield from counted(cell)
        yield from energy(cell)
        if paced := cell.latency_modes.get("paced"):
            pause = f" {_time(record.plan.pace_s)}" if record.plan else ""
            text = f"{cell.name} paced, one inference after{pause} of rest: {figures.duration(paced.median)}"
            text += f", p90 {figures.duration(paced.p90)}"
            steady = f"; {paced.median / cell.latency.median:.2f} times the steady median" if cell.latency else ""
            yield text + steady
        if cold := cell.latency_modes.get("cold"):
            yield "; ".join(
                [
                    f"{cell.name} cold: {figures.duration(cold.median)} from the file to the first answer, load "
                    f"{figures.duration(cold.load)}, first inference {figures.duration(cold.first)}",
                    *cold.remarks,
                ]
            )


def energy(cell: CellRecord) -> Iterator[str]:
    """A cell's energy, in a sentence; nothing if it was not asked for."""
    metered = cell.latency_modes["energy"].energy if "energy" in cell.latency_modes else None
    if metered and metered.joules is None:
        yield f"{cell.name} energy {metered.source}"
    elif metered and metered.joules is not None and metered.watts is not None:
        text = f"{cell.name} energy: {metered.joules * 1e3:.3g} mJ an inference"
        if metered.interval:
            text += f" ({metered.interval.low * 1e3:.3g} to {metered.interval.high * 1e3:.3g})"
        if metered.ratio is not None and metered.ratio_interval:
            low, high = metered.ratio_interval.low, metered.ratio_interval.high
            text += f", {metered.ratio:.2f} times {metered.base}'s ({low:.2f} to {high:.2f})"
        yield f"{text}; {metered.watts:.3g} W in all, by {metered.source}"


def counted(cell: CellRecord) -> Iterator[str]:
    """A cell's instructions, in a sentence; nothing if they were not counted."""
    if counts := cell.counts:
        beside = ""
        if counts.baseline_instructions:
            beside = f", {counts.instructions / counts.baseline_instructions:.4f} times the baseline's"
        yield (
            f"{cell.name} counted: {counts.instructions:,} instructions an inference{beside}; "
            f"{counts.memory_accesses:,} memory accesses, {figures.size(counts.traffic_bytes)} between a 32 KB cache "
            f"and what lies beyond ({counts.tool})"
        )


def _time(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    return f"{seconds:.3g} s" if seconds < 120 else f"{seconds / 60:.3g} min"


def next_step(runs: Runs) -> tuple[str, str] | None:
    """The next command to run and why. None if the reasons say enough."""
    for _, _, row in runs.rows():
        if row.verdict.outcome is not Outcome.FAIL or not row.parity:
            continue
        if row.accelerator != "cpu":
            command = f"harness explain {row.variant} --accelerator {row.accelerator}"
            return f"Which operation {row.accelerator} computes differently", command
        if row.variant != "float32":
            return f"Which layers change {row.name}'s predictions", f"harness explain {row.variant}"
    if runs.outcome is Outcome.PASS:
        return (
            "To judge later runs against this one, keep its record",
            "harness compare baseline/check.json runs/check.json",
        )
    return None


def _listed(kinds: list[str]) -> str:
    return kinds[0] if len(kinds) == 1 else f"{', '.join(kinds[:-1])} and {kinds[-1]}"
