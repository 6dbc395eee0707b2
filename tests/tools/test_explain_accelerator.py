"""`harness explain --accelerator`: operations made wrong in one of many layers, on SwiftShader and on a stand-in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.artifacts import flatbuffer
from harness.cli import main
from harness.output import terminal
from harness.run import worker
from harness.tools import explain_accelerator
from tests.networks import tflite

Array = np.ndarray[Any, Any]


@pytest.fixture
def images() -> Array:
    return np.random.default_rng(1).random((2, 28, 28, 1), np.float32)


def one_by_one(change: Callable[[str, Array], Array]) -> Callable[[bytes, Sequence[Array]], list[Array]]:
    """An accelerator of the tests' own: each operation alone on the CPU, its output changed by name."""

    def run(content: bytes, inputs: Sequence[Array]) -> list[Array]:
        model = flatbuffer.read(content)
        graph = model.subgraphs[0]
        runs = []
        for number in range(len(inputs[0])):
            known = dict(zip(map(int, graph.inputs), (tensor[number] for tensor in inputs), strict=True))
            for operator in graph.operators:
                takes, gives = explain_accelerator.boundary(model, [operator])
                gives = gives or [int(index) for index in graph.outputs]
                alone = worker.load(flatbuffer.cut(model, [operator], takes, gives), 1)
                alone.set(*(known[index] for index in takes))
                alone.invoke()
                name = flatbuffer.outputs(graph, operator)
                known |= {i: change(name, tensor) for i, tensor in zip(gives, alone.get_all(), strict=True)}
            runs.append([known[int(index)] for index in graph.outputs])
        return [np.stack(values) for values in zip(*runs, strict=True)]

    return run


@pytest.mark.usefixtures("swiftshader")
@pytest.mark.parametrize("kind", ["dynamic_range", "int8"])
def test_the_known_fault_is_named_and_reproduced(kind: str, images: Array, tmp_path: Path) -> None:
    """A 1x1 convolution with stride 2 between 3x3 ones: named, alone, with a script that shows it by itself."""
    content = tflite("strided", kind, deep=6)
    run = explain_accelerator.on_device("gpu")
    finding = explain_accelerator.explain(content, images, "gpu", run)
    ((name, described),) = finding.operations
    assert "strided" in name
    assert described == "CONV_2D 1x1, strides 2x2, int8 weights"
    assert finding.difference is not None
    assert finding.difference.error > 0.5
    assert (finding.agree, finding.operations_in_model) == (1, 11)
    explain_accelerator.write(finding, tmp_path / "case", "a title")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    script = [sys.executable, "reproduce.py"]
    shown = subprocess.run(script, cwd=tmp_path / "case", env=environment, capture_output=True, text=True, check=True)
    with np.load(tmp_path / "case" / "case.npz") as case:
        off = np.abs(case["actual"].astype(float) - case["expected"]).max()
    assert f"largest difference {off:.3g}," in shown.stdout


@pytest.mark.usefixtures("swiftshader")
def test_a_sound_model_has_no_finding(images: Array) -> None:
    """float32 of the same network: the whole agrees, and nothing is cut."""
    doings: list[str] = []
    run = explain_accelerator.on_device("gpu")
    finding = explain_accelerator.explain(tflite("strided", deep=6), images, "gpu", run, doings.append)
    assert not finding.whole.departs
    assert not finding.operations
    assert doings == ["the whole model"]


def float16(name: str, tensor: Array) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        return tensor.astype(np.float16).astype(tensor.dtype)


def test_an_overflow_of_float16_is_named(images: Array) -> None:
    """A sum beyond 65504 is infinite in float16 and NaN afterwards; the operation that makes it is named, not those
    that pass it on."""
    content = tflite("overflowing", deep=4)
    finding = explain_accelerator.explain(content, images, "gpu", one_by_one(float16))
    ((name, _),) = finding.operations
    assert "overflowing" in name
    assert finding.difference is not None
    assert "NaN or infinity" in finding.difference.what
    assert "NaN or infinity" in finding.whole.what


def test_zeros_are_named(images: Array) -> None:
    """One of twenty layers gives only zeros."""
    finding = explain_accelerator.explain(
        tflite("plain", deep=20), images, "gpu", one_by_one(lambda name, x: x * 0 if "after13" in name else x)
    )
    ((name, _),) = finding.operations
    assert "after13" in name
    assert finding.difference is not None
    assert finding.difference.what == "only zeros"
    assert finding.agree == 14


def test_a_fault_of_two_together_names_both(images: Array) -> None:
    """What is right alone and wrong behind another operation, as a wrong fusion is: the shortest run that shows it."""

    def run(content: bytes, inputs: Sequence[Array]) -> list[Array]:
        graph = flatbuffer.read(content).subgraphs[0]
        names = ";".join(flatbuffer.outputs(graph, operator) for operator in graph.operators)
        factor = 3 if "after2" in names and "after3" in names else 1
        return [values * factor for values in one_by_one(lambda _, x: x)(content, inputs)]

    finding = explain_accelerator.explain(tflite("plain", deep=5), images, "gpu", run)
    assert ["after2" in finding.operations[0][0], "after3" in finding.operations[1][0]] == [True, True]
    assert len(finding.operations) == 2


def test_a_part_that_crashes_is_named(images: Array) -> None:
    """Where the whole gives no outputs, the operation that gives none alone is the finding, with the reason."""

    def run(content: bytes, inputs: Sequence[Array]) -> list[Array] | str:
        graph = flatbuffer.read(content).subgraphs[0]
        if any("after3" in flatbuffer.outputs(graph, operator) for operator in graph.operators):
            return "the worker ended with exit code -11 while compiling for gpu"
        return one_by_one(lambda _, x: x)(content, inputs)

    finding = explain_accelerator.explain(tflite("plain", deep=6), images, "gpu", run)
    ((name, _),) = finding.operations
    assert "after3" in name
    assert finding.difference is not None
    assert "exit code -11" in finding.difference.what
    assert finding.case is not None
    assert finding.case.actual is None


def test_the_command_line_says_that_an_accelerator_agrees(
    tiny_variants: Path, few_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """CompiledModel on the CPU gives the interpreter's values; no file is written."""
    words = ["explain", "float32", "--models", str(tiny_variants), "--data", str(few_images), "--images", "2"]
    assert main([*words, "--accelerator", "cpu-compiled", "--out", str(tmp_path / "case")]) == 0
    assert capsys.readouterr().out.startswith("float32 on cpu-compiled agrees with the CPU: its outputs differ by 0.")
    assert not list((tmp_path / "case").iterdir())
    assert main([*words, "--accelerator", "gqu"]) == 2
    assert "did you mean 'gpu'?" in capsys.readouterr().err


def test_a_finding_is_told_with_its_numbers_and_files(images: Array) -> None:
    """The operation, its difference, what agrees before it, and where the smallest failing file is."""
    content = tflite("plain", deep=5)
    run = one_by_one(lambda name, values: values * 0 if "after3" in name else values)
    found = explain_accelerator.explain(content, images, "gpu", run)
    text = terminal.finding(found, "int8", Path("runs/case"))
    assert "int8 on gpu differs from the CPU: its outputs differ by " in text
    ((name, described),) = found.operations
    assert f"first wrong: {name} ({described})\n" in text
    assert f"  {found.agree} of {found.operations_in_model} operations come before it and agree\n" in text
    assert text.endswith("smallest failing file: runs/case/case.tflite; python runs/case/reproduce.py shows it")
