"""Images whose class nobody knows are judged by parity alone; the rules of accuracy are named as not judged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from harness.cli import main
from harness.core.cell import Cell
from harness.core.outcome import Outcome
from harness.images import shards
from harness.images.spec import UNLABELLED
from harness.judge import parity, rules
from harness.judge.policy import load
from models.config import DIGITS
from tests.conftest import FEW_IMAGES_POLICY, refusal


@pytest.fixture(scope="module")
def photographs(few_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The few images, named and filed anyhow."""
    folder = tmp_path_factory.mktemp("field")
    for number, image in enumerate(sorted(few_images.iterdir())):
        place = folder / ("", "school", "school/a phone")[number % 3]
        place.mkdir(exist_ok=True, parents=True)
        (place / f"IMG{number:03}.jpg").write_bytes(image.read_bytes())
    return folder


def check(models: Path, model: Path, data: Path, record: Path, *more: str) -> int:
    shared = [
        "--models",
        str(models),
        "--reference",
        str(model),
        "--data",
        str(data),
        "--policy",
        str(FEW_IMAGES_POLICY),
    ]
    return main(["check", *shared, "--json", str(record), "--no-latency", *more])


def test_a_check_of_photographs(
    tiny_variants: Path, tiny_model: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same flips as with labels, no accuracy; the same record in shards; every format of it."""
    record = tmp_path / "check.json"
    assert check(tiny_variants, tiny_model, photographs, record, "--unlabelled") == 0
    shown = capsys.readouterr().out
    assert shown.count("without labels accuracy is not judged; as at most") == 3
    cells = json.loads(record.read_text())["cells"]
    for cell in cells:
        assert not cell["parity"]["labelled"]
        assert {cell["parity"][name] for name in ("accuracy", "reference_accuracy", "log_loss")} == {None}
        assert cell["statistics"]["drop_interval"] is None
        assert [judged["rule"] for judged in cell["checks"]] == [
            "max_flip_share",
            "max_far_share",
            "max_mean_probability_difference",
        ]
    assert (np.load(record.with_suffix(".npz"))["labels"] == UNLABELLED).all()
    assert check(tiny_variants, tiny_model, photographs, tmp_path / "parts.json", "--unlabelled", "--shards", "3") == 0
    assert json.loads((tmp_path / "parts.json").read_text())["cells"] == cells
    assert main(["verdict", str(record)]) == 0
    page, text = tmp_path / "check.html", tmp_path / "check.md"
    assert (
        main(
            [
                "report",
                str(record),
                "--html",
                str(page),
                "--markdown",
                str(text),
                "--junit",
                str(tmp_path / "j"),
                "--flips",
            ]
        )
        == 0
    )
    assert "No variant changed a prediction" in page.read_text() or "<td>?</td>" in page.read_text()
    assert "(-0 +0)" not in text.read_text()
    assert main(["compare", str(record), str(record)]) == 0


def test_without_the_flag_such_names_are_refused(
    tiny_variants: Path, tiny_model: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line."""
    refused = refusal(capsys, check(tiny_variants, tiny_model, photographs, tmp_path / "check.json"))
    assert "IMG000.jpg (name is not <class>_<n>.<ext>)" in refused
    (tmp_path / "empty").mkdir()
    code = check(tiny_variants, tiny_model, tmp_path / "empty", tmp_path / "check.json", "--unlabelled")
    assert "expected images; there is none" in refusal(capsys, code)


def test_parity_alone_fails_and_leaves_open() -> None:
    """What flips too much fails; too few images leave it open."""
    rng = np.random.default_rng(0)
    reference = np.eye(4)[rng.integers(0, 4, 2000)] * 0.9 + 0.025
    labels = np.full(2000, UNLABELLED)
    spoilt = reference.copy()
    spoilt[:100] = np.roll(spoilt[:100], 1, axis=1)
    for outputs, images, outcome in (
        (reference, 2000, "PASS"),
        (spoilt, 2000, "FAIL"),
        (reference, 30, "INCONCLUSIVE"),
    ):
        figures = parity.compare(outputs[:images], reference[:images], labels[:images], cap=0.5)
        judged = rules.judge(Cell("int8"), figures, load())
        assert judged.verdict.outcome is Outcome(outcome)
        assert (
            "without labels accuracy is not judged" in judged.verdict.reasons[-1 if outcome != "INCONCLUSIVE" else -2]
        )
        assert all(check.rule not in rules.OF_LABELS for check in judged.checks)


def test_parquet_without_labels(tmp_path: Path) -> None:
    """The column is not needed."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as written

    written.write_table(pyarrow.table({"image": [b"a", b"b"]}), tmp_path / "set.parquet")
    entries = list(shards.open_source(tmp_path / "set.parquet", DIGITS, labelled=False).entries())
    assert [label for _, label, _ in entries] == [UNLABELLED] * 2
