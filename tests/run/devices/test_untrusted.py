"""What a device sends is data: capped, validated, and never a path, an option or an endless wait on this machine."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.artifacts import manifest
from harness.core import npz
from harness.core.errors import SetupError
from harness.images import dataset
from harness.run import execute, job
from harness.run.devices import bundle, probing, remote, shell, uri
from harness.run.devices.base import UnreachableError
from harness.run.devices.remote import Remote
from harness.run.job import Job
from models.config import DIGITS
from tests.run.devices.rig import Here, silent


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path / "home")


@pytest.fixture
def device(here: Here) -> Remote:
    return Remote(here, "harness", lambda *_: bundle.installed(sys.executable))


@pytest.fixture
def tiny_job(tiny_variants: Path, images: Path, tmp_path: Path) -> Job:
    """The answers of int8 to 55 images."""
    contents = manifest.contents(tiny_variants, {"int8": manifest.read(tiny_variants)["int8"]})
    folder = tmp_path / "job"
    folder.mkdir()
    return job.write(folder, contents, dataset.load(images, DIGITS), None, 2)


def ran(device: Remote, written: Job) -> execute.Outputs:
    with device:
        device.probe()
        return execute.run(written, silent, device)


def test_such_a_device_runs_a_job(device: Remote, tiny_job: Job) -> None:
    """The device of these tests is a device: what they refuse is what they change."""
    outputs = ran(device, tiny_job)
    assert outputs.failures == {}
    assert outputs.results["int8"].arrays["outputs"].shape == (55, 11)


# --- the probe --------------------------------------------------------------------------------------------------------


def test_answers_are_known_short_and_fit_for_a_terminal(here: Here, device: Remote) -> None:
    """Escape sequences, other keys and long texts do not get through."""
    here.program("uname", r"printf '\033[31mred\033[0m%010000d\n' 0; echo evil=1; echo board=Pi")
    with device:
        probe = device.probe()
    assert probe.name == "Pi"
    assert probe.machine.startswith(" [31mred [0m0")
    assert len(probe.machine) == shell.MAX_SHOWN
    assert set(device.answers) <= probing.KEYS | {"machine"}


def test_endless_output_is_cut_off(here: Here, device: Remote) -> None:
    """A probe that never stops printing is one line, not this machine's memory."""
    here.program("python3", "exec yes")
    with device, pytest.raises(SetupError, match="printed more than 4 MB"):
        device.probe()


@pytest.mark.parametrize("version", ["3.13/../../../x", "3.13 --index-url x", "-3.13", "3.999", ""])
def test_a_python_version_is_a_version(version: str) -> None:
    """It is part of a folder's name and of a command here: another text gets a runtime without it."""
    answers = probing.parse(
        f"kernel_machine=riscv64\nmachine=../..\npython=/usr/bin/python3\npython_version={version}\n"
    )
    with pytest.raises(SetupError, match="a device of riscv64: runtimes are made for aarch64 and x86_64 only"):
        uri._for_host("ssh://x", None)(answers, ())


@pytest.mark.parametrize(
    ("kernel", "bits", "machine"),
    [("aarch64", 32, "armv7l"), ("aarch64", 64, "aarch64"), ("armv7l", 32, "armv7l"), ("x86_64", 32, "i686")],
)
def test_a_python_of_32_bits_on_a_kernel_of_64(kernel: str, bits: int, machine: str) -> None:
    """The machine is that of the programs: `uname -m` says aarch64 on a 32-bit Raspberry Pi OS."""
    answers = probing.parse(f"kernel_machine={kernel}\npython_version=3.11\npython_bits={bits}\n")
    assert answers["machine"] == machine
    assert probing.probe("ssh://x", answers).machine == machine


def test_a_32_bit_python_without_wheels_is_told_what_has_them() -> None:
    """On a kernel of 32 bits nothing else can be brought along."""
    answers = probing.parse("kernel_machine=armv7l\npython_version=3.13\npython_bits=32\n")
    with pytest.raises(SetupError, match=r"its Python is 3.13, the interpreter for armv7l needs 3.9 to 3.11"):
        uri._for_host("ssh://x", None)(answers, ())


# --- the worker -------------------------------------------------------------------------------------------------------


def replace_worker(written: Job, source: str) -> None:
    written.worker.write_text(f"import json, os, sys\n{source}\n")


def test_a_task_that_the_job_does_not_have(device: Remote, tiny_job: Job) -> None:
    """A worker that ends at one is stopped with a reason, and not started for ever."""
    replace_worker(tiny_job, "print(json.dumps({'task': 'other', 'done': 0, 'total': 1}), flush=True); sys.exit(3)")
    with pytest.raises(SetupError, match="the worker ended with exit code 3"):
        ran(device, tiny_job)


@pytest.mark.parametrize(
    "printed",
    [
        "'x' * 5_000_000",
        "'{' * 100_000 + chr(10)",
        "json.dumps({'task': 5, 'done': 'a'}) + chr(10)",
        "json.dumps({'pid': -1}) + chr(10)",
        "json.dumps({'ended': 10 ** 30}) + chr(10)",
        "chr(27) + '[2J' + chr(10)",
    ],
    ids=("long", "deep", "types", "pid", "code", "escape"),
)
def test_lines_that_are_no_messages(printed: str, device: Remote, tiny_job: Job) -> None:
    """They take no memory, no progress, and show as one short line."""
    replace_worker(tiny_job, f"print({printed}, end='', flush=True); sys.exit(3)")
    with pytest.raises(SetupError, match="the worker ended with exit code 3") as caught:
        ran(device, tiny_job)
    assert len(str(caught.value)) < shell.MAX_SHOWN + 100
    assert str(caught.value).isprintable()


def test_a_flood_of_lines_waits_to_be_read(device: Remote, tiny_job: Job) -> None:
    """More than are read at once; the last still counts."""
    flood = "print((json.dumps({'task': 'int8', 'done': 0, 'total': 1}) + chr(10)) * 20_000, flush=True)"
    replace_worker(tiny_job, f"{flood}; print('the last'); sys.exit(3)")
    outputs = ran(device, tiny_job)
    assert outputs.failures["int8"].reasons == ("the worker ended with exit code 3: the last",)


# --- its results ------------------------------------------------------------------------------------------------------


def writes(written: Job, content: Callable[[Path], bytes], tmp_path: Path) -> None:
    """Have the worker give a file's content as its result."""
    result = tmp_path / "prepared.npz"
    result.write_bytes(content(written.folder))
    replace_worker(
        written,
        f"content = open({str(result)!r}, 'rb').read()\n"
        "os.makedirs(os.path.join(sys.argv[1], 'results'), exist_ok=True)\n"
        "open(os.path.join(sys.argv[1], 'results', 'int8.npz'), 'wb').write(content)",
    )


def test_a_result_larger_than_any_is_not_fetched(
    device: Remote, tiny_job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its size is asked for first."""
    monkeypatch.setattr(remote, "MAX_RESULT_BYTES", 1000)
    writes(tiny_job, lambda _: bytes(1001), tmp_path)
    with pytest.raises(SetupError, match="the result int8 has 1001 bytes, expected at most 1000"):
        ran(device, tiny_job)
    assert device.traffic.pulled_bytes == 0


def answer(folder: Path, **changes: object) -> bytes:
    """A result as a worker of ours writes it, but for what is changed."""
    nonce = json.loads((folder / "job.json").read_text())["nonce"]
    about = {"nonce": nonce, "task": "int8", "machine": {}, "ran": {"accelerator": "cpu", "runtime": "x"}, **changes}
    return npz.encode({"about": np.array(json.dumps(about)), "outputs": np.zeros((55, 11), np.int8)})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda folder: answer(folder)[:-100], "damaged"),
        (lambda folder: npz.encode({"about": np.zeros(5_000_000, np.uint8)}), "5 MB of arrays, expected at most 1 MB"),
        (lambda folder: npz.encode({"../x": np.zeros(1)}), "expected a plain name"),
        (lambda folder: npz.encode({"about": np.array('{"nonce": ' * 20_000)}), "Expected"),
        (lambda folder: answer(folder, nonce="0" * 16), "of another job"),
        (lambda folder: answer(folder, task="float32"), "of another job"),
    ],
    ids=("cut", "bomb", "name", "deep", "nonce", "task"),
)
def test_a_result_that_is_none(
    content: Callable[[Path], bytes],
    reason: str,
    device: Remote,
    tiny_job: Job,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Damaged, a zip bomb, other names, deep JSON, another job's: INCONCLUSIVE with one line."""
    monkeypatch.setattr(job, "MAX_RESULT_BYTES", 1_000_000)
    writes(tiny_job, content, tmp_path)
    outputs = ran(device, tiny_job)
    assert "int8" not in outputs.results
    (line,) = outputs.failures["int8"].reasons
    assert reason in line
    assert "\n" not in line


@pytest.mark.parametrize(
    "plan",
    ['{"nonce": "../../../etc"}', '{"nonce": 5}', "[" * 100_000, "", '{"nonce": "0123456789abcdef0"}'],
    ids=("path", "number", "deep", "empty", "long"),
)
def test_a_plan_left_there_is_not_believed(plan: str, here: Here, device: Remote, tiny_job: Job) -> None:
    """An unfinished job whose nonce is none is begun anew."""
    with device:
        device.probe()
        device.push(tiny_job)
    (folder,) = (here.home / "harness" / "jobs").iterdir()
    (folder / "job.json").write_text(plan)
    (folder / "results").mkdir(exist_ok=True)
    (folder / "results" / "int8.npz").write_bytes(b"left")
    again = Remote(here, "harness", lambda *_: bundle.installed(sys.executable))
    assert set(ran(again, tiny_job).results) == {"int8"}


# --- the way there ----------------------------------------------------------------------------------------------------


def test_a_login_that_prints(here: Here, device: Remote, tiny_job: Job) -> None:
    """Text before every command, to both streams and without a newline at its end, changes nothing."""
    here.banner = "echo Welcome; echo '{\"ended\": 0}'; echo oops >&2; printf 'no newline'; printf 'nor here' >&2"
    outputs = ran(device, tiny_job)
    assert outputs.failures == {}
    assert set(outputs.results) == {"int8"}
    assert device.answers["kernel_machine"] == os.uname().machine


def test_a_command_that_prints_its_own_mark_is_still_cut(here: Here) -> None:
    """The end mark is another for each command: one that a script knows is not taken for the end."""
    done = shell.execute(here, "echo end-0123456789abcdef 0; echo more; exit 5")
    assert (done.code, done.out) == (5, "end-0123456789abcdef 0\nmore\n")
    with pytest.raises(UnreachableError):
        shell.execute(here, "kill -9 $$")


def test_a_full_disk_is_told_even_where_the_connection_is_cut(here: Here) -> None:
    """The reason that had arrived counts: adb may close the connection on a sender whose reader has failed."""
    done = shell.execute(here, "echo content | cat > /dev/full; kill -9 $$")
    assert done.code == 1
    assert shell.DISK_FULL in done.error
