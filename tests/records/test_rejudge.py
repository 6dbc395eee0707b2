"""Stored records: judged again offline, altered ones refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from harness.cli import main
from harness.core.errors import SetupError
from harness.core.outcome import Outcome, Verdict
from harness.judge import stages
from harness.records import record
from harness.records.arrays import RecordArrays
from harness.records.record import Failure
from harness.records.rejudge import rejudge
from tests.records.sample import CLASSES, IMAGES, a_run, edit_json, silent, stored


def test_the_stored_run_gives_the_same_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every figure is derived again from the arrays alone: the JSON of both is the same; the folder will do."""
    run = a_run()
    path = tmp_path / "check.json"
    record.write(run, path)
    assert rejudge(path).body == run.body
    assert main(["verdict", str(tmp_path)]) == 0
    assert "verdict: PASS" in capsys.readouterr().out


def test_a_failed_run_stays_failed(tmp_path: Path) -> None:
    """Exit code 1, also offline; a variant that never answered keeps the reason it was given."""
    run = a_run(broken=60)
    gone = silent(why="killed", outcome=Outcome.INCONCLUSIVE)
    record.write(replace(run, cells=(*run.cells, gone)), tmp_path / "check.json")
    assert main(["verdict", str(tmp_path / "check.json")]) == 1
    assert rejudge(tmp_path / "check.json").cells[-1].verdict.reasons == ("killed",)


def test_another_policy_judges_the_same_answers(tmp_path: Path) -> None:
    """Twelve broken answers: too many by default, few enough for one that allows two points."""
    path = stored(tmp_path, broken=12)
    assert main(["verdict", str(path)]) == 3
    own = tmp_path / "own.toml"
    own.write_text("[limits]\nmax_accuracy_drop = 0.02\nmin_accuracy_ratio = 0.9\nmax_flip_share = 0.02\n")
    own.write_text(own.read_text() + "max_class_drop = 0.2\n")
    assert main(["verdict", str(path), "--policy", str(own)]) == 0


def test_a_pass_without_outputs_is_none(tmp_path: Path) -> None:
    """A record that claims PASS for a variant whose outputs it does not hold is refused."""
    run = a_run()
    claimed = replace(run.cells[1], variant="float16", verdict=Verdict(Outcome.PASS, ("trust me",)))
    record.write(replace(run, cells=(*run.cells, claimed)), tmp_path / "check.json")
    with pytest.raises(SetupError, match="float16 PASS, its outputs give FAIL"):
        rejudge(tmp_path / "check.json")


def test_an_altered_verdict_is_refused(tmp_path: Path) -> None:
    """FAIL rewritten as PASS does not survive."""
    path = stored(tmp_path, broken=60)

    def claim(content: dict[str, Any]) -> None:
        content["verdict"] = content["cells"][1]["verdict"]["outcome"] = "PASS"

    edit_json(path, claim)
    with pytest.raises(SetupError, match="says int8 PASS, its outputs give FAIL"):
        rejudge(path)


def test_altered_or_missing_arrays_are_refused(tmp_path: Path) -> None:
    """Arrays of another run, cut short, or gone."""
    path = stored(tmp_path)
    arrays = path.with_suffix(".npz")
    whole = arrays.read_bytes()
    arrays.write_bytes(stored(tmp_path, "other.json", broken=3).with_suffix(".npz").read_bytes())
    with pytest.raises(SetupError, match="not the arrays that the record was written with"):
        rejudge(path)
    arrays.write_bytes(whole[:100])
    with pytest.raises(SetupError, match="not the arrays"):
        rejudge(path)
    arrays.unlink()
    with pytest.raises(SetupError, match="expected the record's arrays"):
        rejudge(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"names": np.array(["1_1.jpg"] * IMAGES)}, "2199 of 2200 images stand in it twice"),
        ({"names": np.array([f"{i}" for i in range(IMAGES - 3)])}, "2197 names for 2200 images"),
    ],
)
def test_repeated_and_missing_images_are_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    """Each image is judged once, and all of them are."""
    with pytest.raises(SetupError, match=said):
        rejudge(stored(tmp_path, changes=change))


def test_a_reference_of_other_data_is_refused(tmp_path: Path) -> None:
    """Its hash says on which images it was computed."""
    path = stored(tmp_path)
    edit_json(path, lambda content: content["data"].update(reference_sha256="others"))
    with pytest.raises(SetupError, match="the reference was computed on data others"):
        rejudge(path)


@pytest.mark.parametrize("content", ["", "[]", '{"schema": "harness-record/1"}', '{"schema": "harness-record/4"}'])
def test_files_that_are_no_record_are_refused(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line and exit code 2."""
    path = tmp_path / "check.json"
    path.write_text(content)
    for command in (["verdict", str(path)], ["report", str(path)], ["compare", str(path), str(path)]):
        assert main(command) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        (np.full((IMAGES, CLASSES), np.nan), "NaN or infinite outputs on 2200 of 2200"),
        (np.full((IMAGES - 1, CLASSES), 0.1), "do not pair"),
        (np.full((IMAGES, CLASSES - 1), 0.1), "do not pair"),
        (np.full((IMAGES, CLASSES), 1 / CLASSES), "constant"),
    ],
)
def test_predictions_that_cannot_be_compared_fail(outputs: np.ndarray, said: str) -> None:
    """NaN, another length, another class count, constants: FAIL, and the chain of stages does without them."""
    run = a_run({"float32.outputs": outputs})
    float32, int8 = run.cells
    assert float32.verdict.outcome is Outcome.FAIL
    assert said in float32.verdict.reasons[0]
    assert int8.verdict.outcome is Outcome.PASS


def test_the_hop_that_lost_most_is_named(tmp_path: Path) -> None:
    """Answers change between float32 and int8, not before."""
    run = a_run(broken=3)
    chain = run.cells[1].stages
    assert [(diff.source, diff.target, diff.flips) for diff in chain] == [
        ("Keras", "folded Keras", 0),
        ("folded Keras", "float32", 0),
        ("float32", "int8", 3),
    ]
    assert stages.lost_most(chain) == chain[-1]
    assert stages.lost_most(run.cells[0].stages) is None


@pytest.mark.parametrize("damage", ["scale", "swap", "missing"])
def test_a_variant_that_was_given_something_else_fails(damage: str) -> None:
    """The mean of each input that was set is not the image's: whatever the answers, FAIL before any figure."""
    pixels = np.random.default_rng(0).random(IMAGES)
    given = {
        "scale": pixels / 2,
        "swap": np.concatenate([pixels[1::-1], pixels[2:]]),
        "missing": pixels[:-1],
    }[damage]
    arrays = {"input_means": pixels, "int8.input_scale": np.array(1 / 255), "int8.input_zero_point": np.array(-128)}
    sound = a_run(arrays | {"int8.input_means": pixels * 255 - 128 + 0.5})
    assert sound.cells[1].verdict.outcome is Outcome.PASS
    judged = a_run(arrays | {"int8.input_means": given * 255 - 128}).cells[1].verdict
    assert judged.outcome is Outcome.FAIL
    assert "input" in judged.reasons[0]


def test_latency_that_was_asked_for_and_not_measured_is_no_pass(tmp_path: Path) -> None:
    """A policy that limits latency, on a record without any: INCONCLUSIVE, exit code 3; without limits, PASS."""
    path = stored(tmp_path)
    limits = tmp_path / "limits.toml"
    limits.write_text("[[latency]]\nmax_p90_s = 0.01\n")
    assert rejudge(path).outcome is Outcome.PASS
    judged = rejudge(path, limits)
    assert judged.outcome is Outcome.INCONCLUSIVE
    assert judged.timing is not None
    assert judged.timing.verdict.reasons == ("latency was not measured",)
    assert main(["verdict", str(path), "--policy", str(limits)]) == 3
    limits.write_text("[[latency]]\ndevice = 'adb://*'\nmax_p90_s = 0.01\n")
    assert rejudge(path, limits).outcome is Outcome.PASS


def test_a_failure_is_data_not_a_note(tmp_path: Path) -> None:
    """A worker that crashed over latency fails the check again, whatever its notes say."""
    failed = Failure("latency", "latency-1 of int8", Outcome.FAIL, ("int8: exit code -11",))
    record.write(replace(a_run(), failures=(failed,), outcome=Outcome.FAIL), tmp_path / "check.json")
    judged = rejudge(tmp_path / "check.json")
    assert judged.outcome is Outcome.FAIL
    assert judged.timing is not None
    assert judged.timing.verdict.reasons == ("int8: exit code -11",)
    record.write(replace(a_run(), notes=("latency was not measured: as if",)), tmp_path / "check.json")
    assert rejudge(tmp_path / "check.json").timing is None


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("int8.scale", None, "expected 'int8.scale'"),
        ("int8.scale", np.array(["1"]), "int8.scale is <U1 with 1 dimensions, expected 0 and kind f"),
        ("labels", np.zeros(IMAGES), "labels is float64"),
        ("reference", np.zeros(IMAGES), "reference is float64 with 1 dimensions"),
        ("class_names", np.array(["a", "b"]), "2 class names for 11 outputs"),
        ("int8@tpu.outputs", np.zeros((IMAGES, CLASSES)), "'int8@tpu': expected a variant's name"),
        ("latency.1.kinds", np.array(["int8"]), "process 1: damaged latency ('int8.samples')"),
        ("latency.1.samples", np.zeros(3), "process 1: damaged latency ('kinds')"),
    ],
)
def test_arrays_that_are_not_what_they_must_be_are_refused(name: str, array: Any, said: str, tmp_path: Path) -> None:
    """A record from outside may hold anything: one line, exit code 2."""
    run = a_run()
    arrays = {key: value for key, value in run.arrays.stored.items() if key != name}
    changed = arrays if array is None else arrays | {name: array}
    record.write(replace(run, arrays=RecordArrays(changed)), tmp_path / "check.json")
    with pytest.raises(SetupError, match=re.escape(said)) as caught:
        rejudge(tmp_path / "check.json")
    assert "\n" not in str(caught.value)
    assert main(["verdict", str(tmp_path)]) == 2
