"""`harness check --accelerator`: cells judged side by side, each with what really ran."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from msgspec import structs

from harness.artifacts import flatbuffer, manifest
from harness.cli import main
from harness.core.cell import Cell
from harness.core.files import sha256
from harness.core.outcome import Outcome
from harness.records import record, rejudge
from tests.conftest import FEW_IMAGES_POLICY, refusal


def check(models: Path, model: Path, images: Path, *flags: str) -> int:
    return main(["check", "--models", str(models), "--reference", str(model), "--data", str(images), *flags])


@pytest.fixture
def strided_variants(tiny_variants: Path, tmp_path: Path) -> Path:
    """The same variants with the stride back in the 1x1 convolutions, as TFLiteConverter writes them."""
    folder = Path(shutil.copytree(tiny_variants, tmp_path / "strided"))
    variants = manifest.read(folder)
    for kind, variant in variants.items():
        content = strided(variant.path(folder).read_bytes())
        variant.path(folder).write_bytes(content)
        variants[kind] = structs.replace(variant, sha256=sha256(content), size_bytes=len(content))
    (folder / manifest.FILE).write_bytes(manifest.encode(variants))
    return folder


def strided(content: bytes) -> bytes:
    """A .tflite file whose 1x1 poolings are gone, their strides in the convolutions behind them."""
    model = flatbuffer.read(content)
    for graph in model.subgraphs:
        pools = {
            int(one.outputs[0]): one for one in graph.operators if flatbuffer.operation(model, one) == "MAX_POOL_2D"
        }
        graph.operators = [one for one in graph.operators if int(one.outputs[0]) not in pools]
        for one in graph.operators:
            if pool := pools.get(int(one.inputs[0])):
                one.inputs = [pool.inputs[0], *one.inputs[1:]]
                one.builtinOptions.strideH = pool.builtinOptions.strideH
                one.builtinOptions.strideW = pool.builtinOptions.strideW
    return flatbuffer.pack(model)


@pytest.mark.usefixtures("swiftshader")
def test_a_variant_that_is_wrong_on_the_gpu_alone_fails(
    strided_variants: Path, tiny_model: Path, few_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """float32 agrees on both, int8 on the CPU alone: the GPU gives every image the same class. The record says what
    ran, and is judged alike again."""
    path = tmp_path / "check.json"
    limits = ["--policy", str(FEW_IMAGES_POLICY), "--no-latency", "--json", str(path)]
    kinds = ["--variants", "float32,int8", "--accelerator", "cpu,gpu"]
    assert check(strided_variants, tiny_model, few_images, *kinds, *limits) == 1
    cells = {cell.cell: cell for cell in record.read(path).cells}
    assert list(cells) == [Cell("float32"), Cell("float32", "gpu"), Cell("int8"), Cell("int8", "gpu")]
    outcomes = {str(cell): stored.verdict.outcome for cell, stored in cells.items()}
    assert outcomes["int8@gpu"] is Outcome.FAIL
    assert Outcome.FAIL not in (outcomes["float32"], outcomes["float32@gpu"])
    wrong = cells[Cell("int8", "gpu")]
    assert wrong.ran is not None
    assert "SwiftShader" in (wrong.ran.adapter or "")
    shown = capsys.readouterr().out
    assert "int8@gpu: FAIL" in shown
    assert "gpu is in software, SwiftShader" in shown
    again = {cell.cell: cell.verdict.outcome for cell in rejudge.rejudge(path).cells}
    assert again == {cell: stored.verdict.outcome for cell, stored in cells.items()}


def test_a_machine_without_the_accelerator_is_a_set_up_error(
    tiny_variants: Path,
    tiny_model: Path,
    few_images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit 2, in one line, with what to install; likewise an accelerator that does not exist, with the nearest one."""
    monkeypatch.setenv("VK_ICD_FILENAMES", str(tmp_path / "none.json"))
    flags = ["--no-latency", "--json", str(tmp_path / "check.json"), "--accelerator"]
    code = check(tiny_variants, tiny_model, few_images, *flags, "cpu,gpu")
    assert "mesa-vulkan-drivers" in refusal(capsys, code)
    for name, advice in (
        ("gpu-f32", "did you mean 'gpu-fp32'?"),
        ("GPU", "did you mean 'gpu'?"),
        (",", "expected one"),
    ):
        code = check(tiny_variants, tiny_model, few_images, *flags, name)
        assert advice in refusal(capsys, code)
    code = check(tiny_variants, tiny_model, few_images, *flags, "cpu,gpu", "--device", "adb://none")
    assert "use cpu or cpu-compiled there" in refusal(capsys, code)
