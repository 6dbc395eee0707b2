"""The policy file: defaults, what it changes, what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main
from harness.core import shapes
from harness.core.cell import Cell
from harness.core.errors import SetupError
from harness.judge import policy
from harness.judge.policy import LatencyRule, Limits, Policy


def written(folder: Path, content: str) -> Path:
    path = folder / "policy.toml"
    path.write_text(content)
    return path


def test_a_file_changes_only_what_it_names(tmp_path: Path) -> None:
    """The rest is the default; a variant's table starts from the limits of every variant."""
    default = policy.load()
    content = "[limits]\nmax_accuracy_drop = 0.01\n[variant.int8]\nmax_flip_share = 0.1"
    changed = policy.load(written(tmp_path, content))
    assert changed.alpha == default.alpha
    dynamic, int8 = changed.limits(Cell("dynamic_range")), changed.limits(Cell("int8"))
    assert (dynamic.max_accuracy_drop, int8.max_accuracy_drop) == (0.01, 0.01)
    assert dynamic.max_flip_share == default.limits(Cell("dynamic_range")).max_flip_share
    assert int8.max_flip_share == 0.1
    assert changed.limits(Cell("float32")).max_flip_share == default.limits(Cell("float32")).max_flip_share


def test_the_most_specific_table_counts(tmp_path: Path) -> None:
    """accelerator.NAME.variant.NAME, then accelerator.NAME, variant.NAME, limits; key by key."""
    changed = policy.load(
        written(
            tmp_path,
            "[limits]\nmax_flip_share = 0.1\nmax_class_drop = 0.1\nmin_recall = 0.1\nmax_far_share = 0.1\n"
            "[variant.int8]\nmax_flip_share = 0.2\nmax_class_drop = 0.2\nmin_recall = 0.2\n"
            "[accelerator.gpu]\nmax_flip_share = 0.3\nmax_class_drop = 0.3\nrequire_full_acceleration = false\n"
            "[accelerator.gpu.variant.int8]\nmax_flip_share = 0.4\n",
        )
    )

    def keys(limits: Limits) -> tuple[float, ...]:
        return limits.max_flip_share, limits.max_class_drop, limits.min_recall, limits.max_far_share

    assert keys(changed.limits(Cell("int8", "gpu"))) == (0.4, 0.3, 0.2, 0.1)
    assert keys(changed.limits(Cell("int8"))) == (0.2, 0.2, 0.2, 0.1)
    assert keys(changed.limits(Cell("int8", "npu"))) == (0.2, 0.2, 0.2, 0.1)
    assert keys(changed.limits(Cell("dynamic_range", "gpu"))) == (0.3, 0.3, 0.1, 0.1)
    assert keys(changed.limits(Cell("dynamic_range"))) == (0.1, 0.1, 0.1, 0.1)
    assert not changed.limits(Cell("float32", "gpu")).require_full_acceleration
    assert changed.limits(Cell("float32", "npu")).require_full_acceleration


def test_a_gpu_may_compute_float32_in_16_bits() -> None:
    """By default float32 is judged on it as float16 is elsewhere; int8 as everywhere."""
    default = policy.load()
    gpu, cpu = default.limits(Cell("float32", "gpu")), default.limits(Cell("float32"))
    assert gpu.max_probability_difference == default.limits(Cell("float16")).max_probability_difference
    assert cpu.max_probability_difference < gpu.max_probability_difference
    assert default.limits(Cell("float32", "gpu-fp32")) == cpu
    assert default.limits(Cell("int8", "gpu")) == default.limits(Cell("int8"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[limits]\nmax_acuracy_drop = 0.01", "did you mean 'max_accuracy_drop'"),
        ("[quantized]\nlargest_drop = 0.01", "unknown key 'quantized'"),
        ("alhpa = 0.05", "did you mean 'alpha'"),
        ("[variant.int8]\nflips = 1", "int8: unknown key 'flips'"),
        ("[accelerator.gpi]\nmax_flip_share = 0.1", "unknown accelerator 'gpi'; did you mean 'gpu'"),
        ("[accelerator.cpu]\nmax_flip_share = 0.1", "unknown accelerator 'cpu'"),
        ("[accelerator.gpu]\nmax_flip_shar = 0.1", "gpu: unknown key 'max_flip_shar'; did you mean 'max_flip_share'"),
        ("[accelerator.gpu]\nvariant = 3", "expected a table"),
        ("[accelerator.gpu.variant.int8]\nmax_flip_share = 2", "max_flip_share = 2: expected more than 0"),
        ("[accelerator.gpu]\nrequire_full_acceleration = 1", "expected bool"),
        ("alpha = 0.9", "alpha = 0.9: expected float <= 0.25"),
        ("alpha = 0", "alpha = 0: expected float >= 0.0005"),
        ("alpha = '5 %'", "alpha = '5 %': expected float"),
        ("alpha = nan", "expected a finite number"),
        ("[limits]\nmin_recall = true", "expected less than 1"),
        ("limits = 3", "expected a table"),
        ("variant = {int8 = 3}", "expected a table"),
        ("latency = 3", "expected a list"),
        ("[[latency]]\nvariant = 'int8'", "limits nothing"),
        ("[[latency]]\nmax_p90_s = -1", "max_p90_s = -1: expected float > 0"),
        ("[[latency]]\nmax_p90_s = 0", "max_p90_s = 0: expected float > 0"),
        ("[[latency]]\nmax_ratio = inf", "expected a finite number"),
        ("[[latency]]\nmax_p90_ms = 3", "did you mean 'max_p90_s'"),
        ("[limits", "not valid TOML"),
    ],
)
def test_unknown_keys_and_impossible_values_are_refused(content: str, expected: str, tmp_path: Path) -> None:
    """Each by name, with the nearest valid key or what was expected."""
    with pytest.raises(SetupError, match=expected):
        policy.load(written(tmp_path, content))


@pytest.mark.parametrize("key", [key for key in Limits.__struct_fields__ if key.startswith(("max_", "min_"))])
def test_every_limit_is_a_share_that_images_can_show(key: str, tmp_path: Path) -> None:
    """One rule for all: a max_ of 0 and a min_ of 1 are refused, the other end is no limit, beyond it is nothing."""
    impossible, unlimited = (0, 1) if key.startswith("max_") else (1, 0)
    assert getattr(policy.load(written(tmp_path, f"[limits]\n{key} = {unlimited}")).limits(Cell("x")), key) == unlimited
    for value in (impossible, -0.01, 1.01, "nan", "inf"):
        with pytest.raises(SetupError, match=f"{key} = "):
            policy.load(written(tmp_path, f"[limits]\n{key} = {value}"))


def test_latency_rules_are_read_and_kept(tmp_path: Path) -> None:
    """As the file has them, through the record's JSON; by default there are none; of unknown variants they are
    refused."""
    assert policy.load().latency == ()
    first = "[[latency]]\ndevice = 'adb://*'\nvariant = 'int8'\nmax_p90_s = 0.01\n"
    changed = policy.load(written(tmp_path, f"{first}[[latency]]\naccelerator = 'gpu'\nmax_ratio = 1.05"))
    assert changed.latency == (
        LatencyRule("adb://*", "int8", "*", 0.01, None),
        LatencyRule("*", "*", "gpu", None, 1.05),
    )
    assert shapes.decode(shapes.encode(changed), Policy, "record") == changed
    policy.check_variants(changed, ["float32", "float16", "int8"], "policy")
    with pytest.raises(SetupError, match="unknown variant 'int8'"):
        policy.check_variants(changed, ["float32", "float16"], "policy")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """One line."""
    with pytest.raises(SetupError, match="expected a settings file"):
        policy.load(tmp_path / "none.toml")


@pytest.mark.parametrize("table", ["variant.flaot32", "accelerator.gpu.variant.flaot32"])
def test_a_misspelt_variant_is_refused(table: str, tmp_path: Path) -> None:
    """Its limits would otherwise apply to nothing."""
    changed = policy.load(written(tmp_path, f"[{table}]\nmax_accuracy_drop = 0.01"))
    with pytest.raises(SetupError, match="did you mean 'float32'"):
        policy.check_variants(changed, ("float32", "float16", "int8"), "policy")


def test_the_record_keeps_all_limits() -> None:
    """Written to JSON and read back, it is the same policy; half of one is refused."""
    default = policy.load()
    assert shapes.decode(shapes.encode(default), Policy, "a record") == default
    with pytest.raises(SetupError, match="expected the key 'tables'"):
        shapes.convert({"alpha": 0.05}, Policy, "a record")
    with pytest.raises(SetupError, match=r"expected limits for '\*', any variant"):
        shapes.convert({"alpha": 0.05, "tables": {}}, Policy, "a record")


def test_the_printed_policy_is_the_default(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """`harness check --print-policy > FILE` is a file to start from."""
    with pytest.raises(SystemExit, match="0"):
        main(["check", "--print-policy"])
    assert policy.load(written(tmp_path, capsys.readouterr().out)) == policy.load()
