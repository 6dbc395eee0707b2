"""Stored runs side by side: one model, one set of images, any number of devices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import SetupError
from harness.core.outcome import SEVERITY, Outcome
from harness.records import evidence
from harness.records.record import FILE, Record, VariantRecord


@dataclass(frozen=True)
class Runs:
    """Records and, in the same order, the names of their devices, each another."""

    records: tuple[Record, ...]
    devices: tuple[str, ...]

    @property
    def outcome(self) -> Outcome:
        """The worst of all."""
        return max((record.outcome for record in self.records), key=SEVERITY.index)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Every variant of any record."""
        return tuple(dict.fromkeys(variant.kind for record in self.records for variant in record.variants))

    def each(self) -> Iterator[tuple[str, Record]]:
        """Each device with its record."""
        return zip(self.devices, self.records, strict=True)

    def rows(self) -> Iterator[tuple[str, Record, VariantRecord]]:
        """Each variant on each device, a variant's devices together."""
        for kind in self.kinds:
            for device, record in self.each():
                yield from ((device, record, variant) for variant in record.variants if variant.kind == kind)


def of(records: Sequence[Record]) -> Runs:
    """Records side by side. Raises SetupError where they are of other models or images."""
    first = records[0]
    for what, keys in (("model", "model"), ("images", "data")):
        found = {getattr(record, keys)["sha256"][:12] for record in records}
        if len(found) > 1:
            raise SetupError(
                f"{len(records)} records of other {what} ({', '.join(sorted(found))}): they cannot stand side by side; "
                f"name those of one model and one set of images, as {getattr(first, keys)['sha256'][:12]}"
            )
    names = [device_name(record) for record in records]
    counts = Counter(names)
    names = [
        f"{name} ({record.started})" if counts[name] > 1 else name for name, record in zip(names, records, strict=True)
    ]
    if len(set(names)) < len(names):
        raise SetupError(f"the same run is named twice ({counts.most_common(1)[0][0]}); name each record once")
    return Runs(tuple(records), tuple(names))


def read(paths: Sequence[Path], policy: Path | None = None) -> Runs:
    """Stored runs, judged anew from their arrays. A folder stands for all records in it.

    Raises SetupError as `evidence.again` and `of` do.
    """
    files = [file for path in paths for file in (_in(path) if path.is_dir() else [path])]
    return of([evidence.again(file, policy) for file in files])


def device_name(record: Record) -> str:
    """How a person calls the device of a record."""
    device = record.device
    name = str(device.get("name") or device.get("uri") or record.machine.get("machine", "this machine"))
    return f"{name} (emulated)" if device.get("emulated") else name


def _in(folder: Path) -> list[Path]:
    """The record of a folder, and those of its further devices."""
    stem = Path(FILE).stem
    found = [folder / FILE, *sorted(folder.glob(f"{stem}.*.json"))]
    return [file for file in found if file.exists()] or found[:1]
