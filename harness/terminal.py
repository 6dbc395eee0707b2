"""What a person sees on the terminal: steps and bars on standard error, the result on standard output."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from tabulate import tabulate
from tqdm import tqdm

from converters.inspection import Inspection, Tensor
from converters.manifest import Variant
from converters.runtimes import Answers
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


def converted(variants: Mapping[str, Variant], out: Path) -> str:
    """What was made: a line a variant, then what a person should know of it."""
    lines = [f"{v.path(out)}  {v.size_bytes / 1e6:.2f} MB  sha256 {v.sha256[:12]}" for v in variants.values()]
    notes: dict[str, None] = {}  # each said once
    for kind, variant in variants.items():
        notes |= dict.fromkeys(f"calibration: {warning}" for warning in variant.calibration_warnings)
        notes |= dict.fromkeys(variant.notes)
        if kept := variant.batch_norms_kept:
            why = "; ".join(f"{layer}: {reason}" for layer, reason in kept.items())
            notes[f"{len(kept)} batch norms were not folded: {why}"] = None
        if mixed := variant.mixed:
            notes[
                f"{kind}: {len(mixed.float_layers)} of {mixed.layers} layers in float32; {mixed.flips} of "
                f"{mixed.images} answers differ from float32's, {mixed.flips_all_int8} with all of them in int8"
            ] = None
        for loaded in variant.runtimes[1:]:
            if loaded.problem:
                notes[f"{kind}: {loaded.runtime} does not run it: {loaded.problem}"] = None
            else:
                notes[f"{kind}: {loaded.runtime} gives {loaded.same_top1} of {loaded.images} answers alike"] = None
    return "\n".join([*lines, *notes])


def inspected(found: Inspection) -> str:
    """A file for a person: its ends, its operations, the runtimes, what costs time."""
    lines = [f"{found.file}: {found.size_bytes / 1e6:.2f} MB, sha256 {found.sha256[:12]}"]
    for what, tensors in (("input", found.inputs), ("output", found.outputs)):
        lines += [f"{what}: {_tensor(tensor)}" for tensor in tensors]
    oldest = f"TensorFlow Lite {found.oldest_runtime}" if found.oldest_runtime else "unavailable"
    lines.append(f"oldest runtime by op versions: {oldest} ({found.oldest_runtime_note})")
    for one in found.runs:
        lines.append(f"{one.runtime}: {one.problem or 'runs it'}{_alike(one, found.runs[0])}")
    headers = ("operation", "types", "version", "count", "in XNNPACK")
    rows = [
        (o.name, o.types, o.version, o.count, "-" if o.delegated is None else o.delegated) for o in found.operations
    ]
    lines += ["", tabulate(rows, headers, tablefmt="simple"), ""]
    lines += [f"may cost time: {reason}" for reason in found.slow]
    if not found.slow:
        lines.append("nothing was seen that costs time for no use")
    return "\n".join(lines)


def _tensor(tensor: Tensor) -> str:
    stored = tensor.quantization
    real = f", real = (stored - {stored.zero_point}) * {stored.scale:.6g}" if stored.scale else ""
    return f"{stored.dtype} {list(tensor.shape)}{real}"


def _alike(one: Answers, first: Answers) -> str:
    if one is first or one.problem or first.problem:
        return ""
    same = sum(a == b for a, b in zip(one.top1, first.top1, strict=True))
    return f", {same} of {len(first.top1)} random inputs answered as by {first.runtime}"


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
