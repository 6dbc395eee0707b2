"""Shapes: what a file may hold, and the one line for a file that holds something else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from msgspec import field

from harness.core import shapes
from harness.core.errors import SetupError
from harness.core.outcome import Outcome
from harness.core.shapes import Count, FileName, Shape, Share


class Part(Shape):
    share: Share
    count: Count = 0


class Whole(Shape, tag_field="schema", tag="harness-test/2"):
    file: FileName
    parts: tuple[Part, ...] = ()
    by_name: Mapping[str, Part] = field(default_factory=dict)
    span: tuple[float, float] = (0.0, 1.0)
    mode: Literal["fast", "exact"] = "fast"
    outcome: Outcome = Outcome.PASS
    folder: Path | None = None

    def __post_init__(self) -> None:
        if self.span[0] >= self.span[1]:
            raise ValueError(f"span = {list(self.span)}: expected a low and a high end")


def encoded(**changes: Any) -> str:
    return json.dumps({"schema": "harness-test/2", "file": "a.npz"} | changes)


def refusal(do: Callable[[], object]) -> str:
    with pytest.raises(SetupError) as caught:
        do()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_shape_is_read_back_as_it_was_written() -> None:
    whole = Whole("a.npz", (Part(0.5, 3),), {"x": Part(1)}, (0, 2.5), "exact", Outcome.FAIL, Path("a/b"))
    assert shapes.decode(shapes.encode(whole), Whole, "here") == whole
    assert shapes.encode(whole).startswith(b'{\n  "schema": "harness-test/2",')


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"fil": 1}, "here: unknown key 'fil'; did you mean 'file'?"),
        ({"parts": [{}]}, "here: parts[0]: expected the key 'share'"),
        ({"parts": [{"share": 0}, {"share": 1.5}]}, "here: parts[1].share = 1.5: expected a share, 0 to 1"),
        ({"parts": [{"share": 0, "count": -1}]}, "here: parts[0].count = -1: expected int >= 0"),
        ({"parts": {}}, "here: parts = {}: expected a list"),
        ({"by_name": {"a": {"share": 1}, "b": {"sharp": 1}}}, "here: by_name.b: unknown key 'sharp'; did you mean"),
        ({"by_name": {"a": {"share": 1}, "b": {"share": "x"}}}, "here: by_name.b.share = 'x': expected a share"),
        ({"by_name": 3}, "here: by_name = 3: expected a table of keys"),
        ({"span": [1]}, "here: span = [1]: expected [float, float]"),
        ({"span": [0, True]}, "here: span[1] = True: expected float"),
        ({"span": [2, 1]}, "here: span = [2.0, 1.0]: expected a low and a high end"),
        ({"mode": "slow"}, "here: mode = 'slow': expected 'fast' or 'exact'"),
        ({"outcome": "pass"}, "here: outcome = 'pass': expected 'PASS' or 'INCONCLUSIVE' or 'FAIL'"),
        ({"folder": 3}, "here: folder = 3: expected a path"),
        ({"file": "x" * 300}, "expected a plain file name without a folder"),
        ({"schema": "harness-test/1"}, "here: schema 'harness-test/1', expected 'harness-test/2'"),
        ({"schema": None}, "here: schema None, expected 'harness-test/2'"),
    ],
)
def test_what_does_not_fit_is_named_with_what_was_received_and_expected(changes: Any, expected: str) -> None:
    assert expected in refusal(lambda: shapes.decode(encoded(**changes), Whole, "here"))


@pytest.mark.parametrize("name", ["../a", "a/b", "/a", "a\\b", "", ".", "..", ".a", "a\n", "a\0", "a b", "ä"])
def test_a_file_name_cannot_leave_its_folder(name: str) -> None:
    assert "expected a plain file name" in refusal(lambda: shapes.decode(encoded(file=name), Whole, "here"))


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "\ud800", "NaN"]
    + [pytest.param(start + "[" * 1_000_000, id="deep") for start in ("", encoded()[:-1] + ', "x": ')]
    + [encoded()[:-1] + f', "span": [0, {number}]}}' for number in ("NaN", "Infinity", "1e999")],
)
def test_what_is_no_json_of_the_shape_is_refused(content: str) -> None:
    """Cut short, of another type, nested a million times, numbers that JSON does not have."""
    refusal(lambda: shapes.decode(content.encode(errors="surrogatepass"), Whole, "here"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("share", "a.toml: not valid TOML"),
        ("\xff", "a.toml: not valid TOML"),
        pytest.param("a = " + "[" * 100_000, "a.toml: nested too deeply", id="deep"),
        pytest.param("a = 1\n" + "#" * shapes.MAX_TOML_BYTES, "of at most 1 MB", id="large"),
    ],
)
def test_a_settings_file_that_cannot_be_read_is_refused(content: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(content.encode("latin-1"))
    assert expected in refusal(lambda: shapes.read_toml(path))


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"share": float("nan")}, "a.toml: share = nan: expected a finite number"),
        ({"a": {"b": [1.0, -float("inf")]}}, "a.toml: a: b = -inf: expected a finite number"),
        ({"share": (0.0, float("inf"))}, "a.toml: share = inf: expected a finite number"),
    ],
)
def test_nan_and_infinity_are_rejected(table: dict[str, Any], expected: str) -> None:
    assert expected in refusal(lambda: shapes.convert(table, Part, "a.toml"))


def test_a_missing_file_and_one_too_large_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    assert f"{path}: expected a record" in refusal(lambda: shapes.read_json(path, Whole, "a record"))
    path.write_text(encoded())
    assert shapes.read_json(path, Whole, "a record") == Whole("a.npz")
    monkeypatch.setattr(shapes, "MAX_JSON_BYTES", 10)
    assert "expected a record, of at most" in refusal(lambda: shapes.read_json(path, Whole, "a record"))


def test_nan_is_never_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        shapes.encode(Part(float("nan")))
