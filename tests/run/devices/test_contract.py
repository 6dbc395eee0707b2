"""What every device keeps to: this machine, one through ssh, one through adb."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from harness.artifacts import manifest
from harness.cli import main
from harness.core import shapes
from harness.core.errors import Exit, SetupError
from harness.core.files import sha256
from harness.core.outcome import Outcome
from harness.images import dataset
from harness.records import record
from harness.run import execute, job, worker
from harness.run.devices import uri
from harness.run.devices.base import Device, Probe
from harness.run.devices.local import Local
from harness.run.devices.probing import VIRTUAL_MARK
from harness.run.devices.virtual import Virtual
from harness.run.job import Job
from harness.tools import op_profile
from models.config import DIGITS
from tests.conftest import FEW_IMAGES_POLICY
from tests.run.devices.rig import Rig, harness_folder, pushed, silent

ODD = "a b'c\"d;$(touch executed)`touch executed`é"


@pytest.fixture(params=("ssh", "adb"))
def elsewhere(request: pytest.FixtureRequest) -> Virtual:
    """A device that is not this machine."""
    device: Virtual = request.getfixturevalue("phone" if request.param == "adb" else "pi")
    return device


@pytest.fixture
def address(elsewhere: Virtual) -> str:
    """Its address; it is started again if a test has stopped it."""
    return elsewhere.start()


@pytest.fixture(params=("local", "ssh", "adb"))
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    """Any device, opened."""
    names = {"ssh": "pi", "adb": "phone"}
    where = "local" if request.param == "local" else request.getfixturevalue(names[request.param]).start()
    with uri.device(where) as opened:
        yield opened


@pytest.fixture
def tiny_job(tiny_variants: Path, images: Path, tmp_path: Path) -> Job:
    """Answers of three variants; the nonce is new, so no other test's job is taken up."""
    folder = tmp_path / "job"
    folder.mkdir()
    data = dataset.take(dataset.load(images, DIGITS), np.random.default_rng(time.time_ns()).permutation(55))
    return job.write(folder, manifest.contents(tiny_variants, manifest.read(tiny_variants)), data, None, 2)


def workers(written: Job) -> list[int]:
    """Processes of this machine that run this job's worker, in its folder or elsewhere by its hash."""
    marks = str(written.worker).encode(), sha256(written.worker.read_bytes()).encode()
    pids = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if any(mark in command.read_bytes() for mark in marks):
                pids.append(int(command.parent.name))
    return pids


def test_it_says_what_it_is(device: Device) -> None:
    """Address, name, processor, cores; what cannot be read is None or unavailable, never invented."""
    probe = device.probe()
    assert probe.uri == device.uri
    assert probe.machine == os.uname().machine
    assert probe.cores == len(os.sched_getaffinity(0))
    assert probe.name
    assert probe.system
    assert shapes.decode(shapes.encode(probe), Probe, "a record") == probe
    assert "fine" not in probe.state.values()


def test_a_job_comes_back_with_the_answers_of_this_machine(device: Device, tiny_job: Job, tmp_path: Path) -> None:
    """Every task has a result of the job's nonce, and each output is what the worker answers here."""
    device.probe()
    outputs = execute.run(tiny_job, silent, device)
    assert set(outputs.results) == {"float32", "dynamic_range", "int8"}
    assert not outputs.failures
    for kind, result in outputs.results.items():
        task = {"name": kind, "parallel": 1}
        content = next((tiny_job.folder / "files").joinpath(digest) for digest in _digests(tiny_job, kind)).read_bytes()
        inputs = np.load(tiny_job.folder / json.loads(tiny_job.plan.read_text())["inputs"][0])
        assert np.array_equal(result.arrays["outputs"], worker.answers({kind: content}, inputs, task)["outputs"])


def _digests(written: Job, kind: str) -> list[str]:
    tasks = json.loads(written.plan.read_text())["tasks"]
    return [task["variants"][kind][1] for task in tasks if task["name"] == kind]


def test_a_worker_that_fails_is_data(device: Device, tiny_job: Job) -> None:
    """Its exit code and the last line that it printed come back; it is no exception."""
    _replace_worker(tiny_job, "import sys; print('words', file=sys.stderr); sys.exit(7)")
    device.probe()
    written = device.push(tiny_job)
    ended = device.run(written, silent)
    device.pull(written)
    assert (ended.code, ended.tail) == (7, "words")
    assert not written.result_path("int8").exists()


def test_a_signal_is_told_from_an_exit_code(device: Device, tiny_job: Job) -> None:
    """A worker that dies of a signal has that signal's negative number."""
    _replace_worker(tiny_job, "import os; os.kill(os.getpid(), 11)")
    device.probe()
    assert device.run(device.push(tiny_job), silent).code == -signal.SIGSEGV


def test_a_hanging_worker_is_stopped_there(device: Device, tiny_job: Job) -> None:
    """Silent past the limit: no exit code, and no process is left behind."""
    _replace_worker(
        tiny_job,
        "import json, os, time\nprint(json.dumps({'pid': os.getpid()}), flush=True)\n"
        "print(json.dumps({'task': 'int8', 'done': 0, 'total': 1}), flush=True)\ntime.sleep(600)",
    )
    device.probe()
    ended = device.run(device.push(tiny_job), silent, silence_limit_s=4)
    assert (ended.code, ended.task) == (None, "int8")
    deadline = time.monotonic() + 20
    while workers(tiny_job):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_job_left_unfinished_is_gone_on_with(address: str, tiny_job: Job, tmp_path: Path) -> None:
    """Ctrl-C after the first answers: the next run of the same job does not compute them again."""
    seen: list[str] = []

    def interrupt(task: str, done: int, total: int) -> None:
        if task == "int8":
            raise KeyboardInterrupt

    with uri.device(address) as first:
        first.probe()
        assert execute.run(tiny_job, interrupt, first).interrupted
    with uri.device(address) as second:
        second.probe()
        outputs = execute.run(tiny_job, lambda task, *_: seen.append(task), second)
    assert set(seen) == {"int8"}
    assert set(outputs.results) == {"float32", "dynamic_range", "int8"}


def test_the_whole_check_gives_this_machines_verdicts(address: str, rig: Rig) -> None:
    """Same verdicts, same outputs, and a second run sends no model, image or runtime."""
    record = rig.same(rig.check(address))
    assert record.device.uri.startswith(address.split(":")[0])
    again = rig.same(rig.check(address))
    assert set(pushed(again)) == {"plan"}
    assert all(cell.latency is None for cell in again.cells)  # marked as emulated
    assert record.cells[2].stages[-1].target == "int8 on the device"


def test_odd_names_arrive_and_nothing_is_executed(address: str, elsewhere: Virtual, rig: Rig) -> None:
    """A folder there with spaces, quotes, semicolons, $(...) and letters beyond ASCII."""
    folder = harness_folder(elsewhere).parent / ODD / "x"
    inside = "/" + str(folder.relative_to(elsewhere.root))
    rig.same(rig.check(f"{address}{'&' if '?' in address else '?'}folder={quote(inside)}"))
    assert (folder / "files").is_dir()
    assert not list(elsewhere.root.rglob("executed"))
    assert not Path("executed").exists()


def test_odd_kinds_and_files_arrive(device: Device, tiny_variants: Path, images: Path, tmp_path: Path) -> None:
    """A variant whose task has such a name is answered like any other."""
    content = (tiny_variants / "int8.tflite").read_bytes()
    folder = tmp_path / "job"
    folder.mkdir()
    device.probe()
    written = job.write(folder, {ODD: content}, dataset.load(images, DIGITS), None, 2)
    outputs = execute.run(written, silent, device)
    assert set(outputs.results) == {ODD}, outputs.failures


def test_what_is_left_there(address: str, elsewhere: Virtual, rig: Rig) -> None:
    """The job is removed, or left to look at with --keep; --clean removes all."""
    folder = harness_folder(elsewhere)
    with uri.remote(address) as device:
        device.clean()  # of what other tests left unfinished
    rig.same(rig.check(address))
    assert not list((folder / "jobs").iterdir())
    rig.same(rig.check(address, keep=True))
    (left,) = (folder / "jobs").iterdir()
    assert len(list((left / "results").glob("*.npz"))) == 3
    with uri.remote(address) as device:
        device.clean()
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "lock.owner"]


def test_two_harnesses_exclude_each_other(address: str, tiny_job: Job) -> None:
    """The second is told who is there; when that one has ended, it may."""
    code = f"""
import sys
from harness.run.devices import uri
with uri.remote({address!r}) as device:
    device._take()
    print("held", flush=True)
    sys.stdin.read()
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdin is not None
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with uri.device(address) as second:
        second.probe()
        with pytest.raises(SetupError, match=f"in use by another harness .*process {other.pid} "):
            second.push(tiny_job)
        other.stdin.close()
        other.wait()
        other.stdout.close()
        assert set(execute.run(tiny_job, silent, second).results) == {"float32", "dynamic_range", "int8"}


def test_a_dead_harness_leaves_no_lock(address: str, tiny_job: Job) -> None:
    """Killed with -9 while it held the device: the next one gets it."""
    code = f"""
from harness.run.devices import uri
device = uri.remote({address!r})
device.__enter__()
device._take()
print("held", flush=True)
import time; time.sleep(600)
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    other.kill()
    other.wait()
    other.stdout.close()
    with uri.device(address) as second:
        second.probe()
        assert set(execute.run(tiny_job, silent, second).results) == {"float32", "dynamic_range", "int8"}


def test_damaged_inputs_are_no_verdict_on_the_variant(tiny_job: Job) -> None:
    """A file that is not the job's any more stops the worker: INCONCLUSIVE, never FAIL."""
    (_, digest) = json.loads(tiny_job.plan.read_text())["tasks"][2]["variants"]["int8"]
    path = tiny_job.folder / "files" / digest
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    outputs = execute.run(tiny_job, silent, Local())
    assert outputs.failures["int8"].outcome is Outcome.INCONCLUSIVE
    assert "damaged on the way here" in outputs.failures["int8"].reasons[0]
    assert set(outputs.results) == {"float32", "dynamic_range"}


def _replace_worker(written: Job, source: str) -> None:
    written.worker.write_text(source)


def test_several_shards_drop_nothing(pi: Virtual, rig: Rig, images: Path, tmp_path: Path) -> None:
    """--keep, the comparison with this machine and what was left out: as of a whole set."""
    folder = tmp_path / "images"
    shutil.copytree(images, folder)
    (folder / "3_99.jpg").write_bytes(b"no image")
    path = tmp_path / "check.json"
    command = ["check", "--device", pi.start(), "--models", rig.models, "--reference", rig.model, "--data", folder]
    command += ["--shards", "3", "--keep", "--skip-bad", "--quick", "--json", path, "--policy", FEW_IMAGES_POLICY]
    assert main([*map(str, command)]) == Exit.INCONCLUSIVE  # 55 images are too few for the log loss
    stored = record.read(path)
    assert len(stored.cells) == 3
    assert all(cell.host and cell.host.identical == cell.host.images == 55 for cell in stored.cells)
    assert [name.split()[0] for name in stored.data.skipped] == ["3_99.jpg"]
    assert list((harness_folder(pi) / "jobs").iterdir())
    with uri.remote(pi.start()) as device:
        device.clean()


def test_a_profile_comes_from_the_device(pi: Virtual, tiny_variants: Path, images: Path) -> None:
    """By its own runtime's profiler, every kernel as here; an emulated device is refused, as its times say nothing."""
    given = dataset.load(images, DIGITS).inputs()[:2]
    address, mark = pi.start(), pi.root / VIRTUAL_MARK[1:]
    with pytest.raises(SetupError, match="is emulated: its times say nothing"):
        op_profile.measure(tiny_variants / "int8.tflite", given, "int8", uri.device(address))
    emulated = mark.read_text()
    mark.write_text("virtual\n")
    try:
        there = op_profile.measure(tiny_variants / "int8.tflite", given, "int8", uri.device(address))
    finally:
        mark.write_text(emulated)
    here = op_profile.measure(tiny_variants / "int8.tflite", given, "int8")
    assert [step.kernel for step in there.steps] == [step.kernel for step in here.steps]
    assert there.peak.int8_macs_per_s > 0
