"""A cell's figures as text, the same in every format. What was not measured is a dash."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.core.outcome import Interval
from harness.judge.parity import Parity, PartParity
from harness.judge.rules import number, points
from harness.records.record import CellRecord, Record

BASE = "float32"  # what speed is compared with
NONE = "-"


@dataclass(frozen=True)
class Figures:
    """One cell on one device."""

    accuracy: str = NONE
    accuracy_interval: str = NONE
    drop: str = NONE  # points of accuracy below the reference
    drop_interval: str = NONE
    flips: str = NONE
    largest: str = NONE  # probability difference
    size: str = NONE
    median: str = NONE
    median_interval: str = NONE
    p90: str = NONE
    speedup: str = NONE  # times as fast as BASE
    speedup_interval: str = NONE
    memory: str = NONE  # peak, beyond the interpreter's own


def cell_figures(cell: CellRecord, record: Record) -> Figures:
    """All figures of one cell of a record."""
    texts = {"size": size(cell.size_bytes)}
    if parity := cell.parity:
        changes = parity.changes
        texts |= {
            "accuracy": percent(parity.accuracy),
            "flips": flips(parity),
            "largest": f"{parity.max_probability_difference:.4f}",
        }
        if parity.labelled:
            texts["drop"] = points((changes.regressions - changes.improvements) / parity.images)
    if (proven := cell.statistics) and proven.accuracy and proven.drop_interval:
        texts |= {
            "accuracy_interval": f"{percent(proven.accuracy.low)} to {percent(proven.accuracy.high)}",
            "drop_interval": f"{points(proven.drop_interval.low)} to {points(proven.drop_interval.high)}",
        }
    if times := cell.latency:
        texts |= {"median": duration(times.median), "p90": duration(times.p90)}
        if times.median_interval:
            low, high = times.median_interval.low, times.median_interval.high
            texts["median_interval"] = f"{duration(low, high).partition(' ')[0]} to {duration(high)}"
        if times.memory:
            texts["memory"] = size(times.memory.peak_bytes)
    if faster := speedup(cell.name, record):
        ratio, interval = faster
        texts["speedup"] = f"{ratio:.2f}x"
        if interval:
            texts["speedup_interval"] = f"{interval.low:.2f} to {interval.high:.2f}"
    return Figures(**texts)


MODES = ("mode", "median", "p90", "load", "first")


def mode_rows(cell: CellRecord) -> list[tuple[str, ...]]:
    """A row of MODES for each other mode in which a cell's latency was measured."""
    return [
        (mode, duration(times.median), duration(times.p90), duration(times.load), duration(times.first))
        for mode, times in cell.latency_modes.items()
        if mode != "energy"  # whose times are the steady ones
    ]


TENSORS = ("output", "mean error", "largest", "off", "lowest cosine")


def tensor_rows(cell: CellRecord) -> list[tuple[str, ...]]:
    """A row for each output that is no classes; errors in units of the reference's spread, over the images."""
    return [
        (
            part.name,
            number(part.mean_error),
            number(part.max_error),
            f"{part.off} of {part.images}",
            NONE if part.min_cosine is None else f"{part.min_cosine:.5f}",
        )
        for part in cell.tensors
    ]


PARTS = ("verdict", "images", "accuracy", "drop", "interval", "flips", "off")


def part_headers(what: str) -> tuple[str, ...]:
    """Of a table of slices or labels."""
    return what, *PARTS


def parts_of(record: Record) -> tuple[tuple[str, str, Callable[[CellRecord], tuple[PartParity, ...]]], ...]:
    """What a record's cells are judged by part: its name, the title of its table, and each cell's parts."""
    return (
        ("label", "labels, the worst first", lambda cell: cell.labels),
        ("slice", f"slices by {record.data.slice_by}, the worst first", lambda cell: cell.slices),
    )


def part_rows(parts: Sequence[PartParity], shown: int) -> list[tuple[str, ...]]:
    """A row for each slice or label, the worst first, as many as are shown; the last says how many more there are."""
    rows: list[tuple[str, ...]] = [
        (
            part.name,
            str(part.outcome),
            str(part.images),
            percent(part.accuracy),
            NONE if part.drop is None else points(part.drop),
            f"{points(part.drop_interval.low)} to {points(part.drop_interval.high)}" if part.drop_interval else NONE,
            _share(part.flips, part.flip_share),
            _share(part.off, part.off_share),
        )
        for part in parts[:shown]
    ]
    if rest := parts[shown:]:
        outcomes = Counter(part.outcome for part in rest)
        counted = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
        rows.append((f"and {len(rest)} more", counted, *[NONE] * (len(PARTS) - 1)))
    return rows


def without_dashes(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """The header and the rows of a table, without columns that have nothing but dashes."""
    shown = [place for place in range(len(headers)) if any(row[place] != NONE for row in rows)]
    return [tuple(row[place] for place in shown) for row in (headers, *rows)]


def _share(count: int | None, interval: Interval | None) -> str:
    return f"{count} ({interval.low:.2%} to {interval.high:.2%})" if interval else NONE


def speedup(cell: str, record: Record) -> tuple[float, Interval | None] | None:
    """How many times as fast as BASE a cell is, with its interval. None if their blocks were not interleaved."""
    for ratio in record.timing.ratios if record.timing else ():
        if (ratio.cell, ratio.base) == (cell, BASE):
            interval = ratio.interval
            return 1 / ratio.ratio, Interval(1 / interval.high, 1 / interval.low) if interval else None
        if (ratio.cell, ratio.base) == (BASE, cell):
            return ratio.ratio, ratio.interval
    return None


def flips(parity: Parity) -> str:
    """3 (-2 +1): of them regressions and improvements, where images have labels."""
    of_them = f" (-{parity.changes.regressions} +{parity.changes.improvements})" if parity.labelled else ""
    return f"{parity.flips}{of_them}"


def percent(share: float | None) -> str:
    """98.59%, or a dash if there is nothing to divide by."""
    return NONE if share is None else f"{share:.2%}"


def duration(seconds: float | None, unit_of: float | None = None) -> str:
    """3.72 ms, or 37.2 µs if it is, or `unit_of` is, shorter than a tenth of a millisecond."""
    if seconds is None:
        return NONE
    return f"{seconds * 1e6:.1f} µs" if (unit_of or seconds) < 1e-4 else f"{seconds * 1e3:.2f} ms"


def size(size_bytes: float) -> str:
    """812 B, 3.42 KB, 20.5 KB, 653 KB, 1.79 MB: three digits in the unit that fits."""
    for unit in ("B", "KB", "MB"):
        if size_bytes < 999.5:
            return f"{size_bytes:.3g} {unit}"
        size_bytes /= 1e3
    return f"{size_bytes:.3g} GB"
