"""Variants just made, in other runtimes and on accelerators that an app may use: what they predict there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import numpy.typing as npt
from msgspec import structs

from harness.artifacts import manifest
from harness.artifacts.manifest import Loaded, Variant
from harness.core.cell import Accelerator, Cell
from harness.core.errors import SetupError
from harness.core.files import write_atomic
from harness.images import dataset
from harness.images.spec import ModelSpec
from harness.run import runtimes
from harness.run.runtimes import Answers
from harness.tools import explain_accelerator
from harness.tools.explain_accelerator import Finding

MAX_IMAGES = 55
MAX_EXPLAINED = 5  # images on which the operation is looked for

Step = Callable[[str], AbstractContextManager[None]]
Inputs = npt.NDArray[np.float32]


def compare(
    folder: Path,
    variants: Mapping[str, Variant],
    images: Path,
    names: Sequence[str] = (),
    accelerators: Sequence[Accelerator] = (),
    step: Step = lambda name: nullcontext(),
) -> tuple[dict[str, Variant], dict[Cell, Finding | str]]:
    """The variants, and the folder's manifest, with what other runtimes and this machine's accelerators predict beside
    this Python's interpreter; and what is wrong on an accelerator: the operation, or why the file does not run there.

    images: a folder; if it does not exist, noise is used. names: as `runtimes.python` takes them. Raises SetupError.
    """
    inputs = _inputs(images, manifest.spec_of(variants, folder))
    contents = manifest.contents(folder, variants)
    here = runtimes.answer(contents, inputs)
    loaded: dict[str, list[Loaded]] = {kind: [*variant.runtimes] for kind, variant in variants.items()}
    wrong: dict[Cell, Finding | str] = {}
    for name in names:
        with step(f"running each variant in {name}"):
            for kind, there in runtimes.answer(contents, inputs, name).items():
                loaded[kind].append(_loaded(there.runtime, there, here[kind]))
    for accelerator in accelerators:
        try:
            with step(f"running each variant on {accelerator}"):
                on_accelerator = runtimes.answer(contents, inputs, accelerator=accelerator)
        except SetupError as error:
            raise SetupError(f"{error}; the variants are written to {folder}, but were not compared there") from error
        for kind, there in on_accelerator.items():
            adapter = there.ran.adapter if there.ran else None
            loaded[kind].append(
                _loaded(f"{there.runtime} on {accelerator}" + f" ({adapter})" * bool(adapter), there, here[kind])
            )
            with step(f"comparing {kind} on {accelerator} with the CPU"):
                if problem := _wrong(contents[kind], inputs, accelerator, there, here[kind]):
                    wrong[Cell(kind, accelerator)] = problem
    compared = {kind: structs.replace(variant, runtimes=tuple(loaded[kind])) for kind, variant in variants.items()}
    write_atomic(folder / manifest.FILE, manifest.encode(manifest.read(folder) | compared))
    return compared, wrong


def _inputs(images: Path, takes: ModelSpec) -> Inputs:
    pixels = dataset.load(images, takes, labelled=False).images if images.exists() else takes.random(MAX_IMAGES)
    return takes.to_input(pixels[:: -(-len(pixels) // MAX_IMAGES)])


def _loaded(name: str, there: Answers, here: Answers) -> Loaded:
    if problem := there.problem or here.problem:
        return Loaded(name, 0, 0, problem)
    same = sum(a == b for a, b in zip(there.top1, here.top1, strict=True))
    return Loaded(name, len(there.top1), same, None)


def _wrong(
    content: bytes, inputs: Inputs, accelerator: Accelerator, there: Answers, here: Answers
) -> Finding | str | None:
    """What is wrong with a file on an accelerator. None if it is taken whole and agrees with the CPU."""
    if there.outputs is None or here.outputs is None:
        return there.problem or here.problem
    if there.ran and there.ran.fell_back:
        return f"takes {there.ran.taken} of its {there.ran.operations} operations: {there.ran.left}"
    if not explain_accelerator.compare(here.outputs, there.outputs).departs:
        return None
    off = np.abs(np.nan_to_num(there.outputs, nan=np.inf) - here.outputs).max(axis=1)
    most = np.argsort(-off, kind="stable")[:MAX_EXPLAINED]
    return explain_accelerator.explain(content, inputs[most], accelerator, explain_accelerator.on_device(accelerator))
