"""The policy file: defaults, what it changes, what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main
from harness.core import shapes
from harness.core.cell import Cell
from harness.core.errors import SetupError
from harness.judge import policy
from harness.judge.policy import Policy


def written(folder: Path, content: str) -> Path:
    path = folder / "policy.toml"
    path.write_text(content)
    return path


def test_a_file_changes_only_what_it_names(tmp_path: Path) -> None:
    """The rest is the default; a kind of its own starts from the limits of all quantized kinds."""
    default = policy.load()
    own = policy.load(written(tmp_path, "[quantized]\nlargest_drop = 0.01\n[kinds.int8]\nlargest_flip_share = 0.1"))
    assert own.alpha == default.alpha
    assert own.limits(Cell("dynamic_range")).largest_drop == 0.01
    assert own.limits(Cell("dynamic_range")).largest_flip_share == default.quantized.largest_flip_share
    assert own.limits(Cell("int8")).largest_flip_share == 0.1
    assert own.limits(Cell("int8")).largest_drop == 0.01
    assert own.limits(Cell("float32")).largest_flip_share == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[quantized]\nlargest_dorp = 0.01", "did you mean 'largest_drop'"),
        ("alhpa = 0.05", "did you mean 'alpha'"),
        ("[kinds.int8]\nflips = 1", "unknown key 'flips'"),
        ("alpha = 0.9", "expected 0.0005 to 0.25"),
        ("alpha = '5 %'", "expected float"),
        ("alpha = nan", "expected float"),
        ("[quantized]\nlargest_drop = -0.01", "expected a share"),
        ("[quantized]\nlargest_drop = 0.5e2", "expected a share"),
        ("[quantized]\nlargest_drop = 0", "no number of images"),
        ("[quantized]\nleast_recall = true", "expected float"),
        ("quantized = 3", "expected a table"),
        ("kinds = {int8 = 3}", "expected a table"),
        ("latency = 3", r"expected tables, \[\[latency\]\]"),
        ("[[latency]]\nkind = 'int8'", "limits nothing"),
        ("[[latency]]\np90_s = -1", "expected more than 0"),
        ("[[latency]]\np90_ms = 3", "did you mean 'p90_s'"),
        ("[quantized", "not valid TOML"),
    ],
)
def test_unknown_keys_and_impossible_values_are_refused(content: str, said: str, tmp_path: Path) -> None:
    """Each by name, with the nearest valid key or what was expected."""
    with pytest.raises(SetupError, match=said):
        policy.load(written(tmp_path, content))


def test_latency_rules_are_read_and_kept(tmp_path: Path) -> None:
    """As the file has them, through the record's JSON; by default there are none; of unknown kinds they are refused."""
    assert policy.load().latency == ()
    path = written(
        tmp_path, "[[latency]]\ndevice = 'adb://*'\nkind = 'int8'\np90_s = 0.01\n[[latency]]\nlargest_ratio = 1.05"
    )
    own = policy.load(path)
    assert [(rule.device, rule.kind, rule.p90_s, rule.largest_ratio) for rule in own.latency] == [
        ("adb://*", "int8", 0.01, 0),
        ("*", "*", 0, 1.05),
    ]
    assert shapes.decode(shapes.encode(own), Policy, "record") == own
    policy.check_kinds(own, ["float32", "float16", "int8"], "policy")
    with pytest.raises(SetupError, match="unknown kind 'int8'"):
        policy.check_kinds(own, ["float32", "float16"], "policy")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """One line."""
    with pytest.raises(SetupError, match="expected a settings file"):
        policy.load(tmp_path / "none.toml")


def test_a_misspelt_kind_is_refused(tmp_path: Path) -> None:
    """Its limits would otherwise apply to nothing."""
    own = policy.load(written(tmp_path, "[kinds.flaot32]\nlargest_drop = 0.01"))
    with pytest.raises(SetupError, match="did you mean 'float32'"):
        policy.check_kinds(own, ("float32", "float16", "int8"), "policy")


def test_the_record_keeps_all_limits() -> None:
    """Written to JSON and read back, it is the same policy; half of one is refused."""
    default = policy.load()
    assert shapes.decode(shapes.encode(default), Policy, "a record") == default
    with pytest.raises(SetupError, match="a record: expected the key 'quantized'"):
        shapes.convert({"alpha": 0.05}, Policy, "a record")


def test_the_printed_policy_is_the_default(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`harness check --print-policy > FILE` is a file to start from."""
    with pytest.raises(SystemExit, match="0"):
        main(["check", "--print-policy"])
    assert policy.load(written(tmp_path, capsys.readouterr().out)) == policy.load()
