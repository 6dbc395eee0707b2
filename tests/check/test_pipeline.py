"""`harness check` from the command line, on a tiny model: the table, the record, the verdict, every refusal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from harness.artifacts.manifest import SCHEMA
from harness.cli import main
from harness.run import latency_plan
from harness.run.latency_plan import MLPERF
from tests.conftest import (
    FEW_IMAGES_POLICY,
    ROOT,
    TEST_IMAGES,
    refusal,
    stored_model,
    stored_reference,
    stored_variants,
)


def check(models: Path, reference: Path, data: Path, record: Path, *more: str) -> int:
    if not {"--quick", "--mlperf"} & set(more):
        more = ("--no-latency", *more)
    return main(
        [
            "check",
            "--models",
            str(models),
            "--reference",
            str(reference),
            "--data",
            str(data),
            "--json",
            str(record),
            "--policy",
            str(FEW_IMAGES_POLICY),
            *more,
        ]
    )


@pytest.fixture
def own_variants(tiny_variants: Path, tmp_path: Path) -> Path:
    """A copy of the variants that a test may damage."""
    return Path(shutil.copytree(tiny_variants, tmp_path / "variants"))


def read(record: Path) -> dict[str, Any]:
    return json.loads(record.read_text())


def test_a_faithful_conversion_passes(
    tiny_model: Path, tiny_variants: Path, few_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three variants, each with its figures in the table and in the record; raw samples and outputs beside it."""
    record = tmp_path / "run" / "check.json"
    code = check(tiny_variants, tiny_model, few_images, record, "--quick")
    shown = capsys.readouterr().out
    stored = read(record)
    assert (code, stored["verdict"]) == (0, "PASS")
    assert stored["schema"] == "harness-record/4"
    assert [cell["variant"] for cell in stored["cells"]] == ["float32", "dynamic_range", "int8"]
    float32, parity = stored["cells"][0], stored["cells"][0]["parity"]
    assert (float32["verdict"]["outcome"], parity["flips"], parity["agreement"]) == ("PASS", 0, 1.0)
    arrays = np.load(record.with_suffix(".npz"))
    assert arrays["labels"].shape == (110,)
    for cell in stored["cells"]:
        kind, parity, latency = cell["variant"], cell["parity"], cell["latency"]
        assert kind in shown
        samples = np.concatenate([arrays[f"latency.{process}.{kind}.samples"].ravel() for process in (1, 2, 3)])
        assert latency["median"] == pytest.approx(np.median(samples))
        assert (latency["samples"], latency["processes"]) == (samples.size, 3)
        assert latency["memory"]["peak_bytes"] >= latency["memory"]["steady_bytes"] > 0
        outputs = arrays[f"{kind}.outputs"].astype(float)
        if arrays[f"{kind}.scale"]:
            outputs = (outputs - arrays[f"{kind}.zero_point"]) * arrays[f"{kind}.scale"]
        flips = int((outputs.argmax(1) != arrays["reference"].argmax(1)).sum())
        assert (parity["flips"], parity["agreement"]) == (flips, pytest.approx(1 - flips / 110))
        assert parity["accuracy"] == pytest.approx((outputs.argmax(1) == arrays["labels"]).mean())
    assert arrays["int8.outputs"].dtype == np.int8
    assert f"verdict: {stored['verdict']}" in shown
    timing = stored["timing"]
    assert (timing["control"]["cell"], timing["gated"], timing["processes"]) == ("int8", False, 3)
    assert [ratio["cell"] for ratio in timing["ratios"]] == ["dynamic_range", "int8"]
    assert timing["blocks"] == 3 * 4 * 8


def test_a_latency_limit_counts(tiny_model: Path, tiny_variants: Path, few_images: Path, tmp_path: Path) -> None:
    """A budget of a nanosecond fails, or is undecided on a machine too noisy to say so; without it, PASS."""
    policy, record = tmp_path / "policy.toml", tmp_path / "c.json"
    policy.write_text(FEW_IMAGES_POLICY.read_text() + '[[latency]]\nvariant = "float32"\nmax_p90_s = 1e-9\n')
    only = ("--variants", "float32", "--quick", "--processes", "2")
    code = check(tiny_variants, tiny_model, few_images, record, *only, "--policy", str(policy))
    stored = read(record)
    assert stored["timing"]["gated"]
    assert (code, stored["verdict"]) in ((1, "FAIL"), (3, "INCONCLUSIVE"))
    assert stored["timing"]["verdict"]["outcome"] == stored["verdict"]
    reason = "p90" if code == 1 else ""  # a machine that is too noisy names its own reason
    assert reason in stored["timing"]["verdict"]["reasons"][0]
    assert stored["cells"][0]["verdict"]["outcome"] == "PASS"
    assert check(tiny_variants, tiny_model, few_images, record, *only) == 0


@pytest.mark.slow
def test_mlperfs_single_stream(tiny_model: Path, tiny_variants: Path, few_images: Path, tmp_path: Path) -> None:
    """Each variant alone in its process: no control and no ratios. (Its 60 s are cut down here.)"""
    record = tmp_path / "c.json"
    plan = replace(MLPERF, min_s=0.1, cooldown_s=0, warmup_s=0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency_plan, "MLPERF", plan)
        code = check(
            tiny_variants, tiny_model, few_images, record, "--mlperf", "--variants", "float32,int8", "--cooldown", "0"
        )
    stored = read(record)
    assert code == 0
    assert (stored["timing"]["control"], stored["timing"]["ratios"], stored["timing"]["processes"]) == (None, [], 2)
    assert all(cell["latency"]["samples"] >= 1024 for cell in stored["cells"])


def test_a_swapped_variant_fails(tiny_model: Path, own_variants: Path, few_images: Path, tmp_path: Path) -> None:
    """Another model's float32 file under a truthful-looking manifest is refuted by its answers."""
    other = stored_variants(stored_model("other", shift=1), "--variants", "float32")
    shutil.copy(other / "float32.tflite", own_variants / "float32.tflite")
    stored = read(own_variants / "manifest.json")
    theirs = read(other / "manifest.json")["variants"][0]
    for entry in stored["variants"]:
        if entry["kind"] == "float32":
            entry.update(sha256=theirs["sha256"], size_bytes=theirs["size_bytes"])
    (own_variants / "manifest.json").write_text(json.dumps(stored))
    record = tmp_path / "check.json"
    assert check(own_variants, tiny_model, few_images, record, "--variants", "float32") == 1
    assert read(record)["verdict"] == "FAIL"
    assert "accuracy drop" in read(record)["cells"][0]["verdict"]["reasons"][0]


def test_few_images_are_inconclusive(tiny_model: Path, tiny_variants: Path, tmp_path: Path) -> None:
    """Thirty images cannot prove that a variant stays within a point: exit code 3."""
    images, record = tmp_path / "images", tmp_path / "c.json"
    images.mkdir()
    for number in range(30):
        shutil.copy(ROOT / "data" / "test" / f"{number % 10}_{number + 1}.jpg", images)
    assert check(tiny_variants, tiny_model, images, record, "--variants", "float32") == 3
    assert read(record)["verdict"] == "INCONCLUSIVE"
    assert "images do not decide; about" in read(record)["cells"][0]["verdict"]["reasons"][-1]


def test_the_stored_reference_is_used_and_renewed(
    tiny_model: Path, own_variants: Path, few_images: Path, tmp_path: Path
) -> None:
    """It is written once, read while model and images stay, and computed anew when an image changes."""
    for path in own_variants.glob("reference-*.npz"):  # other tests' references, copied along
        path.unlink()
    arguments = (own_variants, tiny_model, few_images, tmp_path / "c.json", "--variants", "float32")
    check(*arguments)
    (stored,) = own_variants.glob("reference-*.npz")
    with np.load(stored) as file:
        content = dict(file)
    content["outputs"] = np.roll(content["outputs"], 1, axis=1)  # wrong on purpose: is it read?
    np.savez(stored, **content)
    assert check(*arguments) == 1
    stored.write_bytes(stored.read_bytes()[:100])  # damaged: computed anew
    assert check(*arguments) == 0
    changed = Path(shutil.copytree(few_images, tmp_path / "changed"))
    shutil.copy(few_images / "1_1.jpg", changed / "1_2.jpg")
    assert check(own_variants, tiny_model, changed, tmp_path / "c.json", "--variants", "float32") == 0
    assert len(list(own_variants.glob("reference-*.npz"))) == 2


@pytest.mark.parametrize("damage", ["truncated", "corrupted", "missing"])
def test_a_damaged_variant_is_refused(
    damage: str,
    tiny_model: Path,
    own_variants: Path,
    few_images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A .tflite that is not the one the manifest describes is named before anything runs."""
    path = own_variants / "int8.tflite"
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(content[:-100])
    elif damage == "corrupted":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        path.unlink()
    said = refusal(capsys, check(own_variants, tiny_model, few_images, tmp_path / "c.json"))
    assert "int8.tflite" in said
    assert "convert again" in said


def test_a_variant_the_interpreter_refuses_fails_alone(
    tiny_model: Path, own_variants: Path, few_images: Path, tmp_path: Path
) -> None:
    """A broken file under a matching manifest: its own verdict is FAIL, the others' results survive."""
    path = own_variants / "int8.tflite"
    path.write_bytes(path.read_bytes()[:-5000])
    stored = read(own_variants / "manifest.json")
    import hashlib

    for entry in stored["variants"]:
        if entry["kind"] == "int8":
            entry["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (own_variants / "manifest.json").write_text(json.dumps(stored))
    record = tmp_path / "c.json"
    assert check(own_variants, tiny_model, few_images, record, "--quick") == 1
    by_kind = {cell["variant"]: cell for cell in read(record)["cells"]}
    assert by_kind["int8"]["verdict"]["outcome"] == "FAIL"
    assert "refused: " in by_kind["int8"]["verdict"]["reasons"][0]
    assert by_kind["int8"]["latency"] is None
    assert by_kind["float32"]["verdict"]["outcome"] == "PASS"
    assert by_kind["float32"]["latency"]["median"] > 0


def test_a_stale_variant_is_refused(
    tiny_variants: Path, few_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Variants of one model are not judged against another."""
    other = stored_model("other", shift=1)
    assert "stale" in refusal(capsys, check(tiny_variants, other, few_images, tmp_path / "c.json"))


def test_no_variants_is_refused_with_the_next_command(
    tiny_model: Path, few_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder without a manifest: how to make one."""
    said = refusal(capsys, check(tmp_path / "none", tiny_model, few_images, tmp_path / "c.json"))
    assert "harness convert" in said


def test_a_damaged_manifest_is_refused(
    tiny_model: Path, own_variants: Path, few_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cut short, or of another schema."""
    manifest = own_variants / "manifest.json"
    whole = manifest.read_text()
    for content in (
        whole[:50],
        whole.replace(SCHEMA, "harness-manifest/9"),
        "[]",
        f'{{"schema": "{SCHEMA}", "variants": [{{"kind": "int8"}}]}}',
    ):
        manifest.write_text(content)
        said = refusal(capsys, check(own_variants, tiny_model, few_images, tmp_path / "c.json"))
        assert "manifest.json" in said


def test_unknown_variants_threads_and_unwritable_records_are_refused(
    tiny_model: Path, tiny_variants: Path, few_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each before anything is measured."""
    base = (tiny_variants, tiny_model, few_images)
    assert "int4" in refusal(capsys, check(*base, tmp_path / "c.json", "--variants", "int4"))
    assert "--threads" in refusal(capsys, check(*base, tmp_path / "c.json", "--threads", "0"))
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refusal(capsys, check(*base, tmp_path / "file" / "c.json"))


def test_a_config_changed_after_the_conversion_is_refused(
    tiny_model: Path, own_variants: Path, few_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Variants made for other pixels are stale; what the config beside the model says as they were made for, is not."""
    model = Path(shutil.copy(tiny_model, tmp_path / "own.keras"))
    arguments = (own_variants, model, few_images, tmp_path / "c.json", "--variants", "float32")
    (tmp_path / "own.toml").write_text("pixel_range = [-1, 1]")
    assert "own.toml: this config changed since the variants were converted" in refusal(capsys, check(*arguments))
    (tmp_path / "own.toml").write_text("pixel_range = [0, 1]")
    assert check(*arguments) == 0


def test_a_reference_that_only_guesses_is_said(
    tiny_model: Path, tiny_variants: Path, few_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Images of the wrong classes, or pixels of another range: variants may PASS, but the record notes it."""
    mislabelled = tmp_path / "mislabelled"
    mislabelled.mkdir()
    for number, path in enumerate(sorted(few_images.iterdir())):
        shutil.copy(path, mislabelled / f"{int(number == 0)}_{number}.jpg")
    check(tiny_variants, tiny_model, mislabelled, tmp_path / "c.json", "--variants", "float32")
    (note,) = read(tmp_path / "c.json")["notes"]
    assert "no more often than one answer to all" in note
    assert note in capsys.readouterr().out


def test_ctrl_c_keeps_what_was_measured(tiny_model: Path, own_variants: Path, tmp_path: Path) -> None:
    """Interrupted in mid-run: exit code 130, the finished variants in the record, the rest INCONCLUSIVE."""
    shutil.copytree(stored_reference(tiny_model, TEST_IMAGES), own_variants, dirs_exist_ok=True)
    record = tmp_path / "c.json"
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "harness",
            "check",
            "--models",
            str(own_variants),
            "--reference",
            str(tiny_model),
            "--data",
            str(TEST_IMAGES),
            "--json",
            str(record),
            "--policy",
            str(FEW_IMAGES_POLICY),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a job in the background would ignore it
    )
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("harness-job-*/results/float32.npz")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    shown, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    by_kind = {cell["variant"]: cell for cell in read(record)["cells"]}
    assert by_kind["float32"]["verdict"]["outcome"] == "PASS"
    assert by_kind["int8"]["verdict"]["outcome"] == "INCONCLUSIVE"
    assert any(cell["latency"] is None for cell in by_kind.values())
    assert "interrupted" in shown
    assert not list(tmp_path.glob("harness-job-*"))
