"""Converted variants, and the content of a .tflite file, on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from harness.artifacts.manifest import Recovery, Variant
from harness.core.cell import Cell
from harness.output.formats.figures import size
from harness.output.terminal.style import fit, grid
from harness.run.runtimes import Answers
from harness.tools.explain_accelerator import Finding
from harness.tools.inspection import Inspection, OnAccelerator, Operation, Tensor

LABELS_SHOWN = 12


def converted(
    variants: Mapping[str, Variant], out: Path, wrong: Mapping[Cell, Finding | str] = MappingProxyType({})
) -> str:
    """What was made: a line a variant, then what a person should know of it. wrong: on accelerators."""
    lines = [f"{v.path(out)}  {size(v.size_bytes)}  sha256 {v.sha256[:12]}" for v in variants.values()]
    notes: dict[str, None] = {}  # each is printed once
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
    notes |= {f"{cell}: {_wrong(cell, finding, out)}": None for cell, finding in wrong.items()}
    takes = dict.fromkeys(f"takes {variant.spec}" for variant in variants.values())
    tables = [_recovered(variant.recovery) for variant in variants.values() if variant.recovery]
    return fit("\n".join([*lines, *takes, *notes, *tables]))


def _recovered(recovery: Recovery) -> str:
    """What was tried, in order, and what it brought; then how the one that was taken was trained."""
    rows = [
        (
            attempt.recipe + (" (taken)" if attempt.recipe == recovery.recipe else ""),
            attempt.outcome or "not made",
            str(attempt.flips) if attempt.outcome else "-",
            "-" if attempt.accuracy is None else f"{attempt.accuracy:.2%}",
            f"{attempt.seconds:.1f} s",
        )
        for attempt in recovery.attempts
    ]
    lines = ["", grid(rows, ("int8", "policy", f"flips of {recovery.images}", "top-1 accuracy", "took"), left=2)]
    lines += [f"{attempt.recipe}: {attempt.problem}" for attempt in recovery.attempts if attempt.problem]
    if training := recovery.training:
        lines.append(
            f"trained {training.steps} steps of {training.batch_size} of {training.images} images on the "
            f"{'labels' if training.learned_from == 'labels' else 'answers of the Keras model'}; loss "
            f"{training.loss_before:.3g} to {training.loss:.3g} at step {training.best_step}"
        )
        lines += [f"stopped: {training.stopped}"] if training.stopped else []
    return "\n".join(lines)


def _wrong(cell: Cell, finding: Finding | str, out: Path) -> str:
    if isinstance(finding, str):
        return f"WRONG: {finding}"
    (name, description), *_ = finding.operations or (("no single operation", "only the whole model"),)
    return (
        f"WRONG: its outputs differ from the CPU's by {finding.whole}; first wrong: {name} ({description}); harness "
        f"explain {cell.variant} --accelerator {cell.accelerator} --models {out} writes it as a small file"
    )


def inspected(inspection: Inspection) -> str:
    """A file: its signature, its operations, the runtimes, what costs time."""
    lines = [f"{inspection.file}: {size(inspection.size_bytes)}, sha256 {inspection.sha256[:12]}"]
    for what, tensors in (("input", inspection.inputs), ("output", inspection.outputs)):
        lines += [f"{what}: {_tensor(tensor)}" for tensor in tensors]
    lines += [f"metadata: {line}" for line in _metadata(inspection)]
    oldest = f"TensorFlow Lite {inspection.oldest_runtime}" if inspection.oldest_runtime else "unavailable"
    lines.append(f"oldest runtime by op versions: {oldest} ({inspection.oldest_runtime_note})")
    for run in inspection.runs:
        lines.append(f"{run.runtime}: {run.problem or 'runs it'}{_alike(run, inspection.runs[0])}")
    there = [on for on in inspection.accelerators if on.ran]
    headers = ("operation", "types", "version", "count", "in XNNPACK", *(f"on {on.accelerator}" for on in there))
    rows = [
        (o.name, o.types, str(o.version), str(o.count), _count(o.delegated), *(_taken(o, on) for on in there))
        for o in inspection.operations
    ]
    lines += ["", grid(rows, headers, left=2), "", *map(_on_accelerator, inspection.accelerators)]
    lines += [f"may cost time: {reason}" for reason in inspection.slow]
    if not inspection.slow:
        lines.append("no avoidable slowdowns found")
    return fit("\n".join(lines))


def _metadata(inspection: Inspection) -> Iterator[str]:
    if inspection.metadata_problem:
        yield inspection.metadata_problem
    if not (about := inspection.metadata):
        return
    people = [f"by {about.author}"] * bool(about.author) + [f"licence {about.licence}"] * bool(about.licence)
    yield "; ".join(filter(None, (about.name, *people, about.description)))
    if about.std:
        mean, std = (" ".join(f"{value:g}" for value in values) for values in (about.mean, about.std))
        yield f"input = (pixel - {mean}) / {std} for pixels of 0 to 255"
    if about.labels:
        more = f" and {len(about.labels) - LABELS_SHOWN} more" if len(about.labels) > LABELS_SHOWN else ""
        yield f"{len(about.labels)} labels: {', '.join(about.labels[:LABELS_SHOWN])}{more}"


def _count(number: int | None) -> str:
    return "-" if number is None else str(number)


def _taken(operation: Operation, on: OnAccelerator) -> str:
    """How many of these operations an accelerator takes; its library names only the kinds that it leaves."""
    assert on.ran is not None
    if not on.ran.fell_back or not on.ran.taken:
        return str(operation.count if on.ran.taken else 0)
    names = [line.partition(":")[0] for line in on.ran.not_taken]
    return "not all" if operation.name in names else str(operation.count)


def _on_accelerator(on: OnAccelerator) -> str:
    if on.ran is None:
        return f"{on.accelerator}: {on.problem}"
    where = f"{on.accelerator} ({on.ran.adapter})" if on.ran.adapter else on.accelerator
    if on.problem:
        return f"{where}: does not run it: {on.problem}"
    if on.ran.fell_back:
        return f"{where}: takes {on.ran.taken} of {on.ran.operations} operations; it leaves {on.ran.left}"
    return "\n".join(
        [f"{where}: takes all {on.ran.operations} operations", *(f"  it warns: {w}" for w in on.ran.warnings)]
    )


def _tensor(tensor: Tensor) -> str:
    stored = tensor.quantization
    real = f", real = (stored - {stored.zero_point}) * {stored.scale:.6g}" if stored.scale else ""
    return f"{stored.dtype} {list(tensor.shape)}{real}"


def _alike(answers: Answers, first: Answers) -> str:
    if answers is first or answers.problem or first.problem:
        return ""
    same = sum(a == b for a, b in zip(answers.top1, first.top1, strict=True))
    return f", {same} of {len(first.top1)} random inputs answered as by {first.runtime}"
