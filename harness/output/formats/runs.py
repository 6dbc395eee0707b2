"""Stored runs side by side: one model, one set of images, any number of devices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from harness.core.cell import Accelerator, Cell
from harness.core.errors import SetupError
from harness.core.outcome import SEVERITY, Outcome
from harness.records.record import FILE, CellRecord, Record
from harness.records.rejudge import rejudge

Preference = Literal["fastest", "smallest", "least-changed"]


@dataclass(frozen=True)
class Runs:
    """Records and, in the same order, their devices' names, all different. prefer: of variants that pass."""

    records: tuple[Record, ...]
    devices: tuple[str, ...]
    prefer: Preference = "fastest"

    @property
    def outcome(self) -> Outcome:
        """The worst outcome of all records."""
        return max((record.outcome for record in self.records), key=SEVERITY.index)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell of any record."""
        return tuple(dict.fromkeys(row.cell for record in self.records for row in record.cells))

    def each(self) -> Iterator[tuple[str, Record]]:
        """Each device with its record."""
        return zip(self.devices, self.records, strict=True)

    def rows(self) -> Iterator[tuple[str, Record, CellRecord]]:
        """Each cell on each device, a cell's devices together."""
        for cell in self.cells:
            for device, record in self.each():
                yield from ((device, record, row) for row in record.cells if row.cell == cell)


def side_by_side(records: Sequence[Record]) -> Runs:
    """Raises SetupError if they are of different models or images, or if one is there twice."""
    first = records[0]
    for what, key in (("model", "model"), ("images", "data")):
        hashes = {getattr(record, key).sha256[:12] for record in records}
        if len(hashes) > 1:
            raise SetupError(
                f"{len(records)} records of different {what} ({', '.join(sorted(hashes))}) cannot be shown side by "
                f"side; name those of one model and one set of images, such as {getattr(first, key).sha256[:12]}"
            )
    names = [device_name(record) for record in records]
    counts = Counter(names)
    names = [
        f"{name} ({record.started})" if counts[name] > 1 else name for name, record in zip(names, records, strict=True)
    ]
    if len(set(names)) < len(names):
        raise SetupError(f"the same run is named twice ({counts.most_common(1)[0][0]}); name each record once")
    return Runs(tuple(records), tuple(names))


def read(paths: Sequence[Path], policy: Path | None = None, prefer: Preference = "fastest") -> Runs:
    """Stored runs, judged again from their arrays. A folder stands for all records in it.

    Raises SetupError as `rejudge` and `side_by_side` do.
    """
    files = [file for path in paths for file in (_in(path) if path.is_dir() else [path])]
    return replace(side_by_side([rejudge(file, policy) for file in files]), prefer=prefer)


def overview(record: Record) -> tuple[list[Accelerator], dict[str, list[CellRecord | None]]]:
    """Accelerators across, variants down, the cell of each place. None for a place that was not checked."""
    places = {(cell.variant, cell.accelerator): cell for cell in record.cells}
    across = list(dict.fromkeys(cell.accelerator for cell in record.cells))
    down = dict.fromkeys(cell.variant for cell in record.cells)
    return across, {variant: [places.get((variant, accelerator)) for accelerator in across] for variant in down}


def device_name(record: Record) -> str:
    """A record's device, for a person."""
    name = record.device.name or record.device.uri
    return f"{name} (emulated)" if record.device.emulated else name


def _in(folder: Path) -> list[Path]:
    """The record of a folder, and those of its further devices."""
    stem = Path(FILE).stem
    files = [folder / FILE, *sorted(folder.glob(f"{stem}.*.json"))]
    return [file for file in files if file.exists()] or files[:1]
