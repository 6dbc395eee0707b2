"""The manifest: written as it is read; one from outside that names other files, or is none, is refused by one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from harness.artifacts import manifest
from harness.artifacts.manifest import Loaded, Mixed, Quantization, Variant
from harness.core import shapes
from harness.core.errors import SetupError
from models.config import DIGITS


def a_variant() -> Variant:
    return Variant(
        kind="int8",
        file="int8.tflite",
        sha256="aa",
        size_bytes=1000,
        source_sha256="bb",
        spec=DIGITS,
        batch_norms_folded=3,
        batch_norms_kept={"bn": "its scale is negative"},
        notes=("a note",),
        calibration_sha256="cc",
        calibration_size=220,
        calibration_warnings=(),
        mixed=Mixed(("dense",), 4, 2, 1, 5, 100, "dd"),
        input=Quantization("int8", 1 / 255, -128),
        output=Quantization("int8", 1 / 256, -128),
        op_versions={"CONV_2D": 3},
        oldest_runtime="2.3",
        runtimes=(Loaded("ai-edge-litert 2.3.0", 10, 10, None),),
    )


def stored(folder: Path, change: Callable[[dict[str, Any]], Any] = lambda content: None) -> Path:
    content = json.loads(manifest.encode({"int8": a_variant()}))
    change(content)
    (folder / manifest.FILE).write_text(json.dumps(content))
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(SetupError) as caught:
        manifest.read(folder)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(folder))
    return str(caught.value)


def test_a_manifest_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    assert manifest.read(stored(tmp_path)) == {"int8": a_variant()}


@pytest.mark.parametrize("file", ["../int8.tflite", "a/int8.tflite", "/etc/passwd", "..", "a\\b", "", "a\nb", "C:x", 3])
def test_a_file_outside_the_folder_is_refused(file: object, tmp_path: Path) -> None:
    folder = stored(tmp_path, lambda content: content["variants"][0].update(file=file))
    assert "variants[0].file = " in refusal(folder)
    assert "expected a plain file name without a folder; convert again" in refusal(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda content: content["variants"][0].pop("spec"), "variants[0]: expected the key 'spec'"),
        (lambda content: content["variants"][0].update(note=1), "unknown key 'note'; did you mean 'notes'?"),
        (
            lambda content: content["variants"][0].update(kind="int7"),
            "kind = 'int7': expected one of float32, ",
        ),
        (lambda content: content["variants"][0].update(size_bytes="9"), "variants[0].size_bytes = '9': expected int"),
        (lambda content: content["variants"][0].update(op_versions={"A": 1, "B": "x"}), "op_versions.B = 'x'"),
        (lambda content: content["variants"][0]["input"].update(scale=float("nan")), "not valid JSON"),
        (lambda content: content["variants"][0]["spec"].update(class_names=["a"]), "variants[0].spec: 1 classes"),
        (lambda content: content["variants"][0]["spec"].update(std=[0]), "std = [0.0]: expected numbers above 0"),
        (lambda content: content["variants"].append(content["variants"][0]), "int8 is in it twice"),
        (lambda content: content.update(variants={}), "variants = {}: expected a list"),
        (lambda content: content.update(variants=content["variants"] * 1001), "of length <= 1000"),
        (lambda content: content.update(variants=[{}] * 1_000_000), "variants[0]: expected the key 'kind'"),
        (lambda content: content.update(schema="harness-manifest/9"), "schema 'harness-manifest/9', expected"),
    ],
)
def test_a_manifest_that_is_not_what_it_must_be_is_refused(
    change: Callable[[dict[str, Any]], Any], says: str, tmp_path: Path
) -> None:
    message = refusal(stored(tmp_path, change))
    assert says in message
    assert message.endswith("; convert again")
    assert len(message) < 400


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 1_000_000, b"\xff", b"null"], ids=range(5))
def test_what_is_no_manifest_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / manifest.FILE).write_bytes(content)
    assert "convert again" in refusal(tmp_path)


def test_a_manifest_of_another_size_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "MAX_JSON_BYTES", 100)
    assert "expected a manifest, of at most" in refusal(stored(tmp_path))
    assert "make the variants" in refusal(tmp_path / "none")


def test_variants_of_different_models_do_not_go_together(tmp_path: Path) -> None:
    other = replace(a_variant(), spec=replace(DIGITS, pixel_range=(-1.0, 1.0)))
    with pytest.raises(SetupError, match="int8 and float32 were converted for other class names"):
        manifest.spec_of({"int8": a_variant(), "float32": other}, tmp_path)
