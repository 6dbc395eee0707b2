"""A check in one file: the same verdict from it, whatever was left out of it; hostile files are refused in one line."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from harness.check import pack, pipeline
from harness.check.engine import LocalEngine
from harness.check.pack import Pack
from harness.check.pipeline import CheckedRun
from harness.cli import main
from harness.core.progress import NO_BARS
from harness.images import shards
from tests.check.rig import Check, figures
from tests.conftest import FEW_IMAGES_POLICY, refusal


@pytest.fixture(scope="module")
def packed(check: Check, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny variants on few images."""
    path = tmp_path_factory.mktemp("packed") / "job.zip"
    words = ["device", "pack", str(path), "--models", str(check.models), "--reference", str(check.model)]
    assert main([*words, "--data", str(check.data), "--policy", str(FEW_IMAGES_POLICY)]) == 0
    return path


def changed(packed: Path, path: Path, **contents: bytes | None) -> Path:
    """The pack with other contents of some files, whose names have - for . and /; None: without it."""
    with zipfile.ZipFile(packed) as whole, zipfile.ZipFile(path, "w") as archive:
        for name in whole.namelist():
            key = name.replace(".", "_").replace("/", "_")
            content = contents.get(key, whole.read(name))
            if content is not None:
                archive.writestr(name, content)
    return path


def edited(packed: Path, name: str, **changes: Any) -> bytes:
    with zipfile.ZipFile(packed) as archive:
        return json.dumps(json.loads(archive.read(name)) | changes).encode()


def refused(path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line; no record, and nothing else, is written."""
    before = sorted(folder.rglob("*"))
    capsys.readouterr()
    said = refusal(capsys, main(["check", "--packed", str(path), "--json", str(folder / "c.json"), "--no-latency"]))
    assert sorted(folder.rglob("*")) == before
    return said


def test_a_pack_gives_the_verdict_of_its_folder(check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In shards and with a bad image left out, too: the record is that of the folder, byte for byte."""
    monkeypatch.setattr(shards, "usual_size", lambda spec: 40)
    images = Path(shutil.copytree(check.data, tmp_path / "images"))
    (images / "3_4.jpg").write_bytes(b"")
    folder = Check(check.models, check.model, images)
    words = ["device", "pack", str(tmp_path / "job.zip"), "--models", str(check.models)]
    words += ["--reference", str(check.model), "--data", str(images), "--policy", str(FEW_IMAGES_POLICY)]
    assert main(words) == 2
    assert main([*words, "--skip-bad"]) == 0
    opened = Pack(tmp_path / "job.zip")
    asked = pipeline.Check(opened.subject, opened, ("local",), tmp_path / "packed.json", skip_bad=True)
    with LocalEngine(["local"]) as engine:
        expected = folder.run(engine, ["local"], tmp_path / "folder.json", 40, skip_bad=True)
        (result,) = pipeline.run_all([asked], engine, opened, NO_BARS)
    assert isinstance(result, CheckedRun)
    assert figures(result.record) == figures(expected.record)


def test_flags_are_obeyed_or_refused(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--shards` is refused; `--variants` are chosen from it, and one that it lacks is refused."""
    words = ["check", "--packed", str(packed), "--json", str(tmp_path / "c.json"), "--no-latency"]
    assert "--shards: a packed check is divided already" in refusal(capsys, main([*words, "--shards", "2"]))
    assert "int16x8" in refusal(capsys, main([*words, "--variants", "int16x8"]))
    main([*words, "--variants", "float32"])
    assert [cell["variant"] for cell in json.loads((tmp_path / "c.json").read_text())["cells"]] == ["float32"]


def test_hostile_packs_are_refused(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names that are paths, deep JSON, missing and huge files, too many: one line each, exit 2, nothing written."""
    path = tmp_path / "inner" / "job.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(packed) as archive:
        variants = json.loads(archive.read("manifest.json"))["variants"]
    for file in ("../../escaped", "/tmp/escaped", "a/b", ""):
        entries = [entry | {"file": file} for entry in variants]
        said = refused(
            changed(packed, path, manifest_json=edited(packed, "manifest.json", variants=entries)), tmp_path, capsys
        )
        assert "expected a plain file name" in said
    entries = [entry | {"kind": "../../x"} for entry in variants]
    assert "kind" in refused(
        changed(packed, path, manifest_json=edited(packed, "manifest.json", variants=entries)), tmp_path, capsys
    )
    for name in ("pack_json", "manifest_json"):
        refused(changed(packed, path, **{name: b'{"variants":' * 200_000}), tmp_path, capsys)
        assert "pack again" in refused(changed(packed, path, **{name: None}), tmp_path, capsys)
    assert "int8.tflite" in refused(changed(packed, path, int8_tflite=b"x"), tmp_path, capsys)
    assert "damaged" in refused(changed(packed, path, shards_000000_npz=b"x"), tmp_path, capsys)
    said = refused(changed(packed, path, pack_json=edited(packed, "pack.json", images=10**12)), tmp_path, capsys)
    assert "expected names of 7653 images" in said
    monkeypatch.setattr(pack, "MAX_FILES", 3)
    assert "files in it, expected at most 3" in refused(packed, tmp_path, capsys)
    monkeypatch.undo()
    monkeypatch.setattr(pack, "MAX_BYTES", 100_000)
    assert "larger than" in refused(packed, tmp_path, capsys)


def test_what_a_lab_cannot_do_is_refused(check: Check, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--keep` and `--benchmark-model` with a scheduler: one line, before anything is connected."""
    words = ["check", "--models", str(check.models), "--reference", str(check.model), "--data", str(check.data)]
    words += ["--json", str(tmp_path / "c.json"), "--scheduler", "tcp://127.0.0.1:1"]
    assert "--keep: not in a lab" in refusal(capsys, main([*words, "--keep"]))
    assert "--benchmark-model: not in a lab" in refusal(capsys, main([*words, "--benchmark-model", str(check.model)]))
