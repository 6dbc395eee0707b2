"""What a person sees on the terminal: steps and bars on standard error, the result on standard output."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from tabulate import tabulate
from tqdm import tqdm

from harness.record import Record, VariantRecord


@contextmanager
def step(name: str) -> Iterator[None]:
    """Names a step and counts its seconds while it runs; silent when piped."""
    if not sys.stderr.isatty():
        yield
        return
    begin = time.monotonic()
    print(f"  {name} ...", end="", file=sys.stderr, flush=True)
    done = False
    try:
        yield
        done = True
    finally:
        print(f" {time.monotonic() - begin:.1f} s" if done else "", file=sys.stderr, flush=True)


class Bars:
    """One bar for each task, called with its name, what is done and the total; use with `with`."""

    def __enter__(self) -> Self:
        self._bar: tqdm[Any] | None = None
        self._task = ""
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, task: str, done: int, total: int) -> None:
        if task != self._task or self._bar is None:
            self.__exit__()
            self._bar = tqdm(total=total, desc=f"  {task}", disable=not sys.stderr.isatty())
            self._task = task
        self._bar.total = total
        self._bar.update(done - self._bar.n)


HEADERS = ("variant", "verdict", "accuracy", "reference", "agreement", "flips", "max |dp|", "size", "median", "p90")


def table(record: Record) -> str:
    """The record for a person: one row a variant, the reasons, the verdict last."""
    rows = [_row(variant) for variant in record.variants]
    lines = [
        tabulate(rows, HEADERS, tablefmt="simple", disable_numparse=True, colalign=("left", "left", *["right"] * 8))
    ]
    lines.append("")
    lines += [f"{v.kind}: {v.verdict.outcome}: {'; '.join(v.verdict.reasons)}" for v in record.variants]
    lines += record.notes
    data, machine = record.data, record.machine
    lines.append(
        f"{data['images']} images of {data['folder']}, {len(data['skipped'])} skipped; "
        f"{machine.get('runtime', 'runtime unavailable')}, {machine.get('machine', '')}, "
        f"{record.plan['threads']} thread{'s' if record.plan['threads'] > 1 else ''} for latency"
    )
    lines.append(f"verdict: {record.outcome}")
    return "\n".join(lines)


def _row(variant: VariantRecord) -> tuple[str, ...]:
    parity, times = variant.parity, variant.latency
    figures = ("-",) * 5
    if parity:
        figures = (
            f"{parity.accuracy:.2%}",
            f"{parity.reference_accuracy:.2%}",
            f"{parity.agreement:.2%}",
            str(parity.flips),
            f"{parity.largest_probability_difference:.4f}",
        )
    return (
        variant.kind,
        str(variant.verdict.outcome),
        *figures,
        f"{variant.size_bytes / 1e6:.2f} MB",
        _milliseconds(times.median if times else None),
        _milliseconds(times.p90 if times else None),
    )


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.2f} ms"
