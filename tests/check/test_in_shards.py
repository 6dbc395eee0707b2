"""A check in shards: the verdict of one process, peak memory aside; evidence, what is done again and what is not."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.check import references, subject
from harness.check.engine import Dispatcher, LocalEngine, Lost
from harness.check.shard_task import RefusedError, ShardAnswer, ShardJob, run_shard
from harness.cli import main
from harness.core.cell import Cell
from harness.core.errors import Exit, SetupError
from harness.core.outcome import Outcome
from harness.images import dataset
from harness.judge import policy, predictions
from harness.records import arrays, record, sharded_arrays
from harness.records.arrays import RecordArrays
from harness.records.rejudge import rejudge
from harness.run import execute, job
from harness.run.devices.base import DeviceRecord
from harness.run.devices.benchmark_model import BenchmarkModel
from harness.run.devices.local import Local
from harness.run.execute import Outputs
from tests.check.rig import Check, figures
from tests.conftest import DIGITS, FEW_IMAGES_POLICY, quiet_step, refusal

LOCAL = ["local"]
SIZE = 28  # what `--shards 4` makes of 110 images


@pytest.fixture
def done(check: Check, tmp_path: Path) -> Path:
    """The record of a check in shards."""
    path = tmp_path / "check.json"
    with LocalEngine(LOCAL) as engine:
        record.write(check.run(engine, LOCAL, path, SIZE).record, path)
    return path


def test_benchmark_model_runs_beside_shards_once(check: Check, tmp_path: Path) -> None:
    """On the first shard with images, each variant."""
    tool, runs = tmp_path / "benchmark_model", tmp_path / "runs"
    tool.write_text(
        f"#!/bin/sh\necho run >> {runs}\necho 'Inference timings in us: Init: 5685, First inference: 18535, "
        "Warmup (avg): 14000, Inference (avg): 14575.2' >&2\n"
    )
    tool.chmod(0o755)
    with LocalEngine(LOCAL, benchmark=BenchmarkModel(tool, ())) as engine:
        beside = check.run(engine, LOCAL, tmp_path / "check.json", SIZE).record.device.benchmark_model
    assert beside
    assert {kind: figures.inference_s for kind, figures in beside.items()} == dict.fromkeys(beside, 0.0145752)
    assert len(runs.read_text().splitlines()) == len(beside)


def test_shards_give_the_verdict_of_the_whole(check: Check, done: Path, tmp_path: Path) -> None:
    """Figures are those of all images judged at once, whatever the shards' size."""
    limits = policy.load(FEW_IMAGES_POLICY)
    what = subject.load(check.models, check.model, limits)
    data = dataset.load(check.data, what.spec)
    outputs = execute.run(job.write(tmp_path, what.contents, data, None, job.ALL_CORES), lambda *_: None, Local())
    expected = references.obtain(check.model, data, check.models, quiet_step)
    whole = (
        arrays.image_arrays(data.names, data.labels, data.input_means())
        | arrays.class_arrays(data.spec.class_names)
        | arrays.reference_arrays(expected.outputs, expected.folded)
    )
    for kind, variant in what.variants.items():
        whole |= arrays.answer_arrays(Cell(kind), outputs.results[kind].arrays, variant.input)
    answers = RecordArrays(whole).predictions()
    judged = {cell: predictions.judge(cell, answers, limits) for cell in answers.cells}
    stored = json.loads(done.read_text())
    assert stored["data"]["sha256"] == data.sha256
    assert [one["images"] for one in stored["shards"]] == [28, 28, 28, 26]
    for row in rejudge(done).cells:
        assert (row.parity, row.stages) == (judged[row.cell].parity, judged[row.cell].stages)


def test_a_small_set_is_one_shard_in_memory(check: Check, done: Path, tmp_path: Path) -> None:
    """Record and arrays are those of the same set in several shards, byte for byte; nothing lies beside the record."""
    path = tmp_path / "alone" / "check.json"
    with LocalEngine(LOCAL) as engine:
        small = check.run(engine, LOCAL, path, 110).record
    assert sorted(file.name for file in record.write(small, path).parent.iterdir()) == ["check.json", "check.npz"]
    assert figures(small) == figures(rejudge(done)) == figures(rejudge(path))
    several, one = record.read(done).arrays.stored, record.read(path).arrays.stored
    assert set(several) == set(one)
    for name, array in one.items():
        assert np.array_equal(several[name], array), name
    assert not path.with_suffix(".shards").exists()


def test_evidence_is_written_shard_by_shard(done: Path) -> None:
    """Each shard's file holds its images alone; together they read as one record's arrays, and are verified."""
    (first, *_) = sorted(sharded_arrays.folder_of(done).glob("*.npz"))
    with np.load(first) as stored:
        assert stored["int8.outputs"].shape == (28, 11)
        assert stored["digests"].shape == (28, 32)
    stored_arrays = record.read(done).arrays
    assert stored_arrays.raw_answers(Cell("int8")).shape == (110, 11)
    assert stored_arrays.labels.tolist() == [int(name.split("_")[0]) for name in stored_arrays.names]
    content = dict(np.load(first))
    content["int8.outputs"] = np.roll(content["int8.outputs"], 1, axis=1)
    np.savez(first, **content)
    assert main(["verdict", str(done)]) == 2


def test_what_is_finished_is_not_done_again(check: Check, done: Path) -> None:
    """Of four shards one is missing and one is of other images: those two are answered, the others left as they are."""
    folder = sharded_arrays.folder_of(done)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    (folder / "000001.npz").unlink()
    content = dict(np.load(folder / "000003.npz"))
    np.savez(folder / "000003.npz", **content | {"key": np.array("of something else")})
    with LocalEngine(LOCAL) as engine:
        again = check.run(engine, LOCAL, done, SIZE).record
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert [name for name in sorted(after) if before[name] != after[name]] == ["000001.npz", "000003.npz"]
    assert figures(again) == figures(rejudge(done))


def test_bad_images_are_refused_or_counted(check: Check, tmp_path: Path) -> None:
    """By name, exit code 2; with --skip-bad the others are judged, and they are listed."""
    check = replace(check, data=Path(shutil.copytree(check.data, tmp_path / "images")))
    (check.data / "3_4.jpg").write_bytes(b"")
    (check.data / "x.jpg").write_bytes(b"")
    with LocalEngine(LOCAL) as engine:
        with pytest.raises(SetupError, match=r"1 file: x\.jpg \(name is not"):
            check.run(engine, LOCAL, tmp_path / "c.json", SIZE)
        (check.data / "x.jpg").unlink()
        with pytest.raises(SetupError, match=r"1 file: 3_4\.jpg \(empty file\) cannot be used"):
            check.run(engine, LOCAL, tmp_path / "c.json", SIZE)
        found = check.run(engine, LOCAL, tmp_path / "c.json", SIZE, skip_bad=True).record
    assert (found.data.images, found.data.skipped) == (109, ("3_4.jpg (empty file)",))


def test_the_command_takes_shards_and_tables(check: Check, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--shards`, with latency of the first; a number that is none is refused."""
    base = ["check", "--models", str(check.models), "--reference", str(check.model), "--data", str(check.data)]
    base += ["--json", str(tmp_path / "c.json"), "--policy", str(FEW_IMAGES_POLICY), "--variants", "int8"]
    assert "at least 1" in refusal(capsys, main([*base, "--shards", "0"]))
    assert main([*base, "--shards", "4"]) == 0
    stored = json.loads((tmp_path / "c.json").read_text())
    assert stored["cells"][0]["latency"]["median"] > 0
    assert len(stored["shards"]) == 4


def test_latency_is_measured_on_the_first_images_that_can_be_used(check: Check, tmp_path: Path) -> None:
    """The first of two shards has none."""
    images = tmp_path / "images"
    images.mkdir()
    for number, name in enumerate(("1_1.jpg", "1_2.jpg", "2_1.jpg", "2_2.jpg")):
        (images / name).write_bytes((check.data / name).read_bytes() if number > 1 else b"")
    words = ["check", "--models", str(check.models), "--reference", str(check.model), "--data", str(images)]
    words += ["--json", str(tmp_path / "c.json"), "--variants", "int8", "--shards", "2", "--skip-bad", "--quick"]
    words += ["--policy", str(FEW_IMAGES_POLICY)]
    assert main([*words, "--processes", "1"]) == Exit.INCONCLUSIVE  # two images decide nothing
    stored = json.loads((tmp_path / "c.json").read_text())
    assert stored["cells"][0]["latency"]["median"] > 0
    assert (stored["data"]["images"], len(stored["data"]["skipped"])) == (2, 2)


def jobs(count: int) -> Iterator[ShardJob]:
    data = dataset.build(np.empty((0, *DIGITS.shape), np.uint8), [], [], DIGITS)
    return (ShardJob(number, count, not number, data, {}) for number in range(count))


class Flaky(LocalEngine):
    """An engine whose devices `dead` fail at every job, and whose other devices answer."""

    def __init__(self, *dead: str) -> None:
        super().__init__(["ssh://a", "ssh://b"])
        self._dead = dead

    def submit(self, device: str, job: ShardJob) -> Future[ShardAnswer]:
        def answer() -> ShardAnswer:
            if device in self._dead:
                raise OSError("no cable")
            return ShardAnswer(Outputs({}, {}, False), DeviceRecord(device, device, "x86_64", "Linux"))

        return self._executors[device].submit(answer)


@pytest.mark.parametrize(("dead", "lost"), [((), 0), (("ssh://b",), 0), (("ssh://a", "ssh://b"), 20)])
def test_every_job_is_answered_once_or_lost(dead: tuple[str, ...], lost: int) -> None:
    """A device that fails again and again is given up, its jobs go to the other; without any, each is lost once."""
    with Flaky(*dead) as engine:
        ended = list(Dispatcher(engine, ["ssh://a", "ssh://b"], jobs(20)))
    assert sorted(job.number for job, _ in ended) == list(range(20))
    assert sum(isinstance(answer, Lost) for _, answer in ended) == lost
    assert all("no cable" in answer.why for _, answer in ended if isinstance(answer, Lost))


def test_a_device_that_is_not_there_loses_its_jobs_at_once() -> None:
    """And says so."""
    with Flaky() as engine:
        ((_, lost),) = Dispatcher(engine, ["ssh://c"], jobs(1))
    assert isinstance(lost, Lost)
    assert lost.why == "ssh://c: not in sight"


def test_a_job_of_another_worker_file_is_refused(check: Check) -> None:
    """Nothing of it runs: the worker file's hash is not this host's."""
    with pytest.raises(RefusedError, match="install the same tflite-harness on both"):
        run_shard(replace(next(jobs(1)), worker_sha256="0" * 64), Local())


def test_a_variant_that_crashes_fails_alone(check: Check, tmp_path: Path) -> None:
    """In every shard; the others' answers count."""
    models = Path(shutil.copytree(check.models, tmp_path / "variants"))
    path = models / "int8.tflite"
    path.write_bytes(path.read_bytes()[:-5000])
    stored = json.loads((models / "manifest.json").read_text())
    for entry in stored["variants"]:
        if entry["kind"] == "int8":
            entry["sha256"] = subprocess.check_output(["sha256sum", path], text=True).split()[0]
    (models / "manifest.json").write_text(json.dumps(stored))
    check = replace(check, models=models)
    with LocalEngine(LOCAL) as engine:
        found = check.run(engine, LOCAL, tmp_path / "c.json", SIZE).record
    by_kind = {cell.name: cell for cell in found.cells}
    assert by_kind["int8"].verdict.outcome is Outcome.FAIL
    assert by_kind["int8"].verdict.reasons[0].startswith("shard 0: cpu: refused: ")
    assert by_kind["float32"].verdict.outcome is Outcome.PASS


def test_a_shard_is_known_by_its_content(check: Check, done: Path, tmp_path: Path) -> None:
    """Another image under the same name is answered again; one bad file more is, too."""
    changed = replace(check, data=Path(shutil.copytree(check.data, tmp_path / "images")))
    shutil.copy(check.data / "1_2.jpg", changed.data / "1_1.jpg")
    folder = sharded_arrays.folder_of(done)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with LocalEngine(LOCAL) as engine:
        changed.run(engine, LOCAL, done, SIZE)
    assert [path.name for path in sorted(folder.iterdir()) if before[path.name] != path.read_bytes()] == ["000000.npz"]
