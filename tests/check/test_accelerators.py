"""`harness check --accelerator`: cells judged side by side, each with what really ran."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main
from harness.core.cell import Cell
from harness.core.outcome import Outcome
from harness.records import record, rejudge
from tests.conftest import FEW_IMAGES_POLICY, refusal


def check(models: Path, model: Path, images: Path, *flags: str) -> int:
    return main(["check", "--models", str(models), "--reference", str(model), "--data", str(images), *flags])


@pytest.mark.usefixtures("swiftshader")
def test_a_variant_that_is_wrong_on_the_gpu_alone_fails(
    tiny_variants: Path, tiny_model: Path, few_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """float32 agrees on both, int8 on the CPU alone: the GPU gives every image the same class. The record says what
    ran, and is judged alike again."""
    path = tmp_path / "check.json"
    limits = ["--policy", str(FEW_IMAGES_POLICY), "--no-latency", "--json", str(path)]
    kinds = ["--variants", "float32,int8", "--accelerator", "cpu,gpu"]
    assert check(tiny_variants, tiny_model, few_images, *kinds, *limits) == 1
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
    code = check(tiny_variants, tiny_model, few_images, *flags, "gpu-f32")
    assert "unknown accelerator 'gpu-f32'; did you mean 'gpu-fp32'?" in refusal(capsys, code)
