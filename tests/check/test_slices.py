"""A check of slices: the same in one piece, in shards, over a fleet, from a pack and from the record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from tests.conftest import FEW_IMAGES_POLICY, refusal

PATTERN = r"\b(?P<shape>0|6|8|9)_"
LIMITS = "max_slice_drop = 0.9\nmax_slice_flip_share = {share}\n[variant.float32]"


@pytest.fixture
def ask(tiny_variants: Path, tiny_model: Path, few_images: Path, tmp_path: Path) -> Any:
    """Runs `harness check`, or another verb, on the few images."""
    shared = ["--models", str(tiny_variants), "--reference", str(tiny_model), "--data", str(few_images)]

    def run(verb: str, record: str, *more: str, share: float = 0.8) -> int:
        policy = tmp_path / "policy.toml"
        limits = FEW_IMAGES_POLICY.read_text().replace("[variant.float32]", LIMITS.format(share=share))
        policy.write_text(limits)
        words = [*verb.split(), *([str(tmp_path / record)] if verb != "check" else [])]
        if verb == "check":
            words += ["--json", str(tmp_path / record), "--no-latency"]
        return main([*words, *shared, "--policy", str(policy), *more])

    return run


def slices_of(record: Path) -> dict[str, list[dict[str, Any]]]:
    return {cell["variant"]: cell["slices"] for cell in json.loads(record.read_text())["cells"]}


def test_slices_from_images_to_every_format(
    ask: Any, few_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In shards and from the record the same; in the terminal, on the page, in Markdown and in JUnit's XML."""
    assert ask("check", "one.json", "--slice-by", PATTERN, "--variants", "float32,int8") == 0
    shown = capsys.readouterr().out
    assert "slices by shape, the worst first:" in shown
    assert "70 of 110 images have no shape: they are judged as the slice (none)" in shown
    whole = slices_of(tmp_path / "one.json")
    assert {part["name"]: part["images"] for part in whole["int8"]} == {
        **dict.fromkeys("0689", 10),
        "(none)": 70,
    }
    table = tmp_path / "phones.csv"
    names = sorted(path.name for path in few_images.iterdir())
    table.write_text(
        "file_name,shape\n" + "\n".join(f"{n},{n[0] if n[:2] in ('0_', '6_', '8_', '9_') else ''}" for n in names)
    )
    more = ("--slice-by", "shape", "--table", str(table), "--variants", "float32,int8", "--shards", "3")
    assert ask("check", "parts.json", *more) == 0
    assert slices_of(tmp_path / "parts.json") == whole
    assert main(["verdict", str(tmp_path / "parts.json")]) == 0
    assert "slices by shape" in capsys.readouterr().out
    page, text, junit = (tmp_path / name for name in ("check.html", "check.md", "junit.xml"))
    formats = ["--html", str(page), "--markdown", str(text), "--junit", str(junit)]
    assert main(["report", str(tmp_path / "one.json"), *formats]) == 0
    assert "Slices by shape, the worst first" in page.read_text()
    assert "Slices by shape, the worst first:" in text.read_text()
    assert "max_slice_flip_share holds for each of 5 slices" in junit.read_text()
    assert main(["compare", str(tmp_path / "one.json"), str(tmp_path / "parts.json")]) == 0


def test_a_slice_decides_for_the_check(ask: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By narrower limits ten images of a slice are too few; a pack divides by names; a column needs its table."""
    few = ("--variants", "float32")
    assert ask("check", "one.json", "--slice-by", PATTERN, *few, share=0.1) == 3
    assert "4 of 5 slices with too few images for max_slice_flip_share" in capsys.readouterr().out
    assert main(["verdict", str(tmp_path / "one.json")]) == 3
    assert ask("device pack", "packed.zip", *few) == 0
    packed = ["check", "--packed", str(tmp_path / "packed.zip"), "--no-latency", "--json", str(tmp_path / "p.json")]
    assert main([*packed, "--slice-by", PATTERN]) == 0
    assert len(slices_of(tmp_path / "p.json")["float32"]) == 5
    capsys.readouterr()
    assert "expected a column of a table" in refusal(capsys, main([*packed, "--slice-by", "shape"]))
    assert "which is missing" in refusal(capsys, ask("check", "x.json", "--table", "a.csv"))


def test_a_fleet_divides_as_well(
    tiny_variants: Path, tiny_model: Path, few_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By keys of its file, which may be of images without labels, too."""
    file = tmp_path / "fleet.toml"
    file.write_text(
        f"models = '{tiny_variants}'\nreference = '{tiny_model}'\ndata = '{few_images}'\n"
        f"results = '{tmp_path / 'out'}'\n"
        f"policy = '{FEW_IMAGES_POLICY}'\nvariants = ['float32']\nlatency = false\nunlabelled = true\n"
        f"slice_by = '{PATTERN}'\n[[device]]\nuri = 'local'\n"
    )
    assert main(["lab", "check", str(file)]) == 3
    assert "too few images for max_slice_flip_share" in capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "local.json").read_text())
    assert record["data"]["slice_by"] == "shape"
    assert not record["cells"][0]["parity"]["labelled"]
    assert len(record["cells"][0]["slices"]) == 5
