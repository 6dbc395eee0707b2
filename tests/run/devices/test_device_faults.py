"""Every fault between here and a device, made for real: its message and exit code, never a wrong or lost result."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from harness.cli import main
from harness.core.errors import SetupError
from harness.core.outcome import EXIT_CODES, Outcome
from harness.run.devices.probing import VIRTUAL_MARK
from harness.run.devices.virtual import Virtual
from tests.conftest import FEW_IMAGES_POLICY, ROOT, refusal
from tests.needs import needs
from tests.run.devices.rig import Cable, Rig, at, harness_folder, pushed, reasons, silent


def arguments(rig: Rig, address: str, record: Path, *more: str) -> list[str]:
    words = ["check", "--models", str(rig.models), "--reference", str(rig.model)]
    words += ["--data", str(rig.images), "--policy", str(FEW_IMAGES_POLICY), "--json", str(record)]
    return [*words, "--device", address, *more]


@pytest.fixture
def cable(phone: Virtual) -> Iterator[Cable]:
    """A way to the phone that can be cut."""
    port = int(phone.start().rpartition(":")[2])
    opened = Cable(port)
    yield opened
    opened.close()
    forget(opened.port)


def forget(port: int) -> None:
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(["adb", "disconnect", f"127.0.0.1:{port}"], capture_output=True, check=False, timeout=20)


def adb(*words: str) -> str:
    return subprocess.run(["adb", *words], capture_output=True, text=True, check=False).stdout


@pytest.fixture
def nothing_connected(phone: Virtual) -> None:
    adb("disconnect")


def address(cable: Cable) -> str:
    return f"adb://127.0.0.1:{cable.port}"


def clean(device: Virtual) -> None:
    """Remove what checks have left there, but for the runtime, which takes long to send."""
    for name in ("files", "jobs"):
        shutil.rmtree(harness_folder(device) / name, ignore_errors=True)


# --- which device -----------------------------------------------------------------------------------------------------


def test_no_device(rig: Rig, nothing_connected: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, what to plug in, and how to start one without hardware."""
    message = refusal(capsys, main(arguments(rig, "adb://", tmp_path / "c.json")))
    assert "no device is connected" in message
    assert "harness device virtual phone" in message


def test_two_devices_and_no_serial(
    rig: Rig, phone: Virtual, cable: Cable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and both are named."""
    adb("disconnect")
    direct = phone.start().removeprefix("adb://")
    adb("connect", direct)
    adb("connect", f"127.0.0.1:{cable.port}")
    message = refusal(capsys, main(arguments(rig, "adb://", tmp_path / "c.json")))
    assert "2 devices are connected" in message
    assert f"adb://{direct}" in message
    adb("disconnect", direct)
    rig.same(rig.check("adb://"))  # one is left


@pytest.mark.parametrize(
    "serial", ["no such", "$(touch executed)", "a;touch executed", "`touch executed`", "ö'\"", "-x"]
)
def test_an_unknown_serial_is_only_a_name(
    serial: str,
    rig: Rig,
    phone: Virtual,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is not found, whatever letters it has, and nothing is executed."""
    monkeypatch.chdir(tmp_path)
    message = refusal(capsys, main(arguments(rig, f"adb://{quote(serial)}", tmp_path / "c.json")))
    assert serial in message
    assert "not connected" in message or "no device is connected" in message
    assert not (tmp_path / "executed").exists()


@contextmanager
def impostor(answers: bool) -> Iterator[int]:
    """A port that speaks adb's protocol as far as asking for a signature for ever, or not at all."""
    server = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def packet(command: bytes, first: int, payload: bytes) -> bytes:
        number = struct.unpack("<I", command)[0]
        return struct.pack("<6I", number, first, 0, len(payload), sum(payload), number ^ 0xFFFFFFFF) + payload

    def serve() -> None:
        while not stop.is_set():
            with suppress(OSError):
                client, _ = server.accept()
                threading.Thread(target=talk, args=(client,), daemon=True).start()

    def talk(client: socket.socket) -> None:
        with client, suppress(OSError):
            while client.recv(1 << 16) and not stop.wait(0.3):  # else adb answers at once, and keeps a core busy
                if answers:
                    client.sendall(packet(b"AUTH", 1, os.urandom(20)))

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        stop.set()
        server.close()


@pytest.mark.parametrize(
    ("answers", "state", "remedy"), [(True, "unauthorized", "Allow USB debugging"), (False, "offline", "unplug it")]
)
def test_unauthorized_and_offline(
    answers: bool, state: str, remedy: str, rig: Rig, phone: Virtual, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, the state by its name, and what to do."""
    with impostor(answers) as port:
        message = refusal(capsys, main(arguments(rig, f"adb://127.0.0.1:{port}", tmp_path / "c.json")))
        forget(port)
    assert state in message
    assert remedy in message


def test_another_architecture(
    rig: Rig, phone: Virtual, cable: Cable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A phone for whose processor there is no runtime is named as such, exit code 2."""
    properties = phone.root / "system/build.prop"
    before = properties.read_text()
    properties.write_text(re.sub("(?m)^(ro.product.cpu.abi=).*", r"\1armeabi-v7a", before))
    try:
        message = refusal(capsys, main(arguments(rig, address(cable), tmp_path / "c.json")))
    finally:
        properties.write_text(before)
    assert "a device of armv7l" in message


# --- the cable --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_gone_while_files_are_sent(
    rig: Rig, phone: Virtual, cable: Cable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unplugged for good while files are sent: nothing is measured, exit code 2; plugged in again, it completes."""
    clean(phone)
    cable.cut_for_good, cable.cut_after = True, cable.carried + 300_000
    record = tmp_path / "c.json"
    message = refusal(capsys, main(arguments(rig, address(cable), record)))
    assert cable.cuts == 1
    assert "run again" in message
    assert not record.exists()
    cable.refuses = False
    rig.same(rig.check(address(cable)))


def test_cut_while_files_are_sent(rig: Rig, phone: Virtual, cable: Cable) -> None:
    """A short loss is waited for, and the check is complete."""
    clean(phone)
    cable.cut_after = cable.carried + 300_000
    rig.same(rig.check(address(cable)))
    assert cable.cuts == 1


def test_gone_while_the_worker_runs(
    rig: Rig, phone: Virtual, cable: Cable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unplugged for good during the run: INCONCLUSIVE with the reason; the next run resumes with what was finished."""
    started: list[str] = []
    with at("dynamic_range", lambda: cable.cut(for_good=True)) as progress:
        done = rig.check(address(cable), progress)
    assert done.run
    assert done.run.record.outcome is Outcome.INCONCLUSIVE
    assert "finished results are kept" in reasons(done.run.record)["int8"]
    cable.refuses = False
    rig.same(rig.check(address(cable), lambda task, *_: started.append(task)))
    assert "float32" not in [task for task in started if "on this machine" not in task]


def test_cut_while_the_worker_runs(rig: Rig, cable: Cable) -> None:
    """`adb shell` exits 0 with half the output; that is not taken for the end."""
    started: list[str] = []
    with at("int8", cable.cut) as cut:

        def progress(task: str, done: int, total: int) -> None:
            started.append(task)
            cut(task, done, total)

        rig.same(rig.check(address(cable), progress))
    assert started.count("int8") >= 2  # the worker was started again


def test_a_cut_adb_shell_exits_with_0(phone: Virtual, cable: Cable) -> None:
    """Why no exit code is believed here: this is what adb does."""
    adb("connect", f"127.0.0.1:{cable.port}")
    words = ["adb", "-s", f"127.0.0.1:{cable.port}", "shell", "-T", "echo begun; sleep 5; exit 3"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    cable.cut()
    process.stdout.close()
    assert process.wait() in (0, 1, 255)  # 0 up to 34; never the script's own 3


@pytest.mark.slow
def test_gone_while_results_are_fetched(rig: Rig, phone: Virtual, cable: Cable) -> None:
    """Unplugged after the worker has ended: INCONCLUSIVE; the next run fetches its results without running it again."""
    started: list[str] = []

    def progress(task: str, done: int, total: int) -> None:
        if task == "int8" and done == total == 55:
            while workers(phone):
                time.sleep(0.01)
            cable.cut(for_good=True)

    done = rig.check(address(cable), progress)
    assert cable.cuts == 1
    assert done.run
    assert done.run.record.outcome is Outcome.INCONCLUSIVE
    cable.refuses = False
    rig.same(rig.check(address(cable), lambda task, *_: started.append(task)))
    assert {"float32", "dynamic_range"} & set(started) == set()


def test_adbs_server_is_killed(rig: Rig, cable: Cable) -> None:
    """During the run: it is started again, and the check is complete."""
    with at("dynamic_range", lambda: adb("kill-server")) as progress:
        rig.same(rig.check(address(cable), progress))


def test_adbd_is_killed_and_comes_back(rig: Rig, phone: Virtual) -> None:
    """The phone's own daemon restarts during the run: adb calls it offline until it is forgotten."""
    port = int(phone.start().rpartition(":")[2])

    def restart() -> None:
        assert phone.stop()
        phone.start(port)

    with at("dynamic_range", restart) as progress:
        rig.same(rig.check(f"adb://127.0.0.1:{port}", progress))


@pytest.mark.parametrize(("times", "whole"), [(1, True), (9, False)])
def test_a_byte_of_a_pushed_file_is_flipped(times: int, whole: bool, rig: Rig, phone: Virtual, cable: Cable) -> None:
    """It is sent again; if it always arrives damaged, that is the message, and nothing is run."""
    clean(phone)
    content = (rig.models / "int8.tflite").read_bytes()
    cable.damage, cable.damage_times = content[5000:5024], times
    done = rig.check(address(cable))
    if whole:
        assert cable.damage_times == 0
        rig.same(done)
    else:
        assert done.run is None
        assert "arrives damaged, twice" in str(done.problem)


@pytest.mark.parametrize(("times", "whole"), [(1, True), (99, False)])
def test_a_byte_of_a_result_is_flipped(times: int, whole: bool, rig: Rig, cable: Cable) -> None:
    """It is fetched again; if it always arrives damaged, the verdict is INCONCLUSIVE."""
    cable.damage, cable.damage_times = b"outputs.npy", times
    done = rig.check(address(cable))
    assert cable.damage_times < times
    if whole:
        rig.same(done)
    else:
        assert done.run
        assert done.run.record.outcome is Outcome.INCONCLUSIVE
        assert "arrives damaged, twice" in reasons(done.run.record)["float32"]
        cable.damage_times = 0
        rig.same(rig.check(address(cable)))


# --- what is on the device --------------------------------------------------------------------------------------------


def test_a_full_disk(
    rig: Rig, phone: Virtual, cable: Cable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2: how much is free, and how to make room."""
    small = phone.root / "small"
    small.mkdir(exist_ok=True)
    needs("tmpfs")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,uid=2000", "tmpfs", small], check=True)
    try:
        message = refusal(capsys, main(arguments(rig, f"{address(cable)}?folder=/small/harness", tmp_path / "c.json")))
    finally:
        subprocess.run(["umount", small], check=True)
    assert "disk is full" in message
    assert re.search(r"disk is full \(\d\.\d MB free in /small/harness\)", message)
    assert "harness device clean adb://" in message


def test_a_stale_model_of_the_same_size(rig: Rig, phone: Virtual) -> None:
    """It is told by its hash, sent again, and the answers are the right model's."""
    address = phone.start()
    rig.same(rig.check(address))
    digest = rig.subject().variants["int8"].sha256
    there = harness_folder(phone) / "files" / digest
    stale = bytearray(there.read_bytes())
    stale[len(stale) // 2] ^= 0xFF
    there.write_bytes(stale)
    record = rig.same(rig.check(address))
    assert pushed(record)["models"] == len(stale)


def test_a_file_changed_between_push_and_run(rig: Rig, phone: Virtual) -> None:
    """The worker reads no file that is not the job's: INCONCLUSIVE, not FAIL, and the next run mends it."""
    address = phone.start()
    there = harness_folder(phone) / "files" / rig.subject().variants["int8"].sha256
    rig.same(rig.check(address))

    def change() -> None:
        content = bytearray(there.read_bytes())
        content[1000] ^= 1
        there.write_bytes(content)

    with at("float32", change) as progress:
        done = rig.check(address, progress)
    assert done.run
    assert reasons(done.run.record)["int8"].startswith("INCONCLUSIVE")
    assert "damaged on the way here" in reasons(done.run.record)["int8"]
    rig.same(rig.check(address))


def test_a_lost_x_bit_and_a_changed_runtime(rig: Rig, phone: Virtual) -> None:
    """The loader's x-bit is given back; a runtime with one byte changed is sent anew."""
    address = phone.start()
    rig.same(rig.check(address))
    (runtime,) = (harness_folder(phone) / "runtime").iterdir()
    for file in (runtime / "lib").iterdir():
        file.chmod(0o644)
    assert "runtime" not in pushed(rig.same(rig.check(address)))
    (module,) = runtime.glob("site/ai_edge_litert/interpreter.py")
    module.write_bytes(module.read_bytes().replace(b"Interpreter", b"Interpretex", 1))
    assert pushed(rig.same(rig.check(address)))["runtime"] > 1_000_000


# --- the worker -------------------------------------------------------------------------------------------------------


def workers(phone: Virtual) -> list[int]:
    """Its worker's processes, in this machine's numbers."""
    pids = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if b"--tied" in command.read_bytes().split(b"\0") and (command.parent / "root").samefile(phone.root):
                pids.append(int(command.parent.name))
    return pids


def signal_worker(phone: Virtual, number: signal.Signals) -> None:
    pids = workers(phone)
    assert pids
    for pid in pids:
        os.kill(pid, number)


def test_the_worker_is_killed(rig: Rig, phone: Virtual) -> None:
    """As by a phone that needs its memory: that variant is INCONCLUSIVE, the others are answered."""
    with at("float32", lambda: signal_worker(phone, signal.SIGKILL)) as progress:
        done = rig.check(phone.start(), progress)
    rig.same_but_one(done, "exit code -9")


def test_the_worker_hangs(rig: Rig, phone: Virtual, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after its silence, on the phone too; the others are answered."""
    from harness.run.devices.remote import Remote

    original = Remote.run
    monkeypatch.setattr(Remote, "run", lambda self, job, progress: original(self, job, progress, silence_limit_s=4))
    with at("float32", lambda: signal_worker(phone, signal.SIGSTOP)) as progress:
        done = rig.check(phone.start(), progress)
    rig.same_but_one(done, "silent too long")


@pytest.mark.parametrize(
    ("kind", "file", "content", "says"),
    [
        ("phone", "system/dumps/battery", "  level: 100\n", ""),
        ("phone", "system/dumps/low_power", "1\n", "its battery saver is on"),
        ("phone", "system/dumps/thermalservice", "Thermal Status: 3\n", "its thermal status is 3"),
        ("pi", "usr/bin/vcgencmd", "#!/bin/sh\necho throttled=0x50005\n", "it is throttled; cool it"),
    ],
)
def test_a_device_that_holds_its_speed_back(
    kind: str, file: str, content: str, says: str, rig: Rig, request: pytest.FixtureRequest
) -> None:
    """Its times decide nothing, for a reason that is given; its predictions count. A device that is well gets none."""
    device: Virtual = request.getfixturevalue(kind)
    state, mark = device.root / file, device.root / VIRTUAL_MARK[1:]
    before = state.read_text(), mark.read_text()
    state.write_text(content)
    mark.write_text(f"native virtual {kind}\n")  # this machine's processor: its times are times
    try:
        record = rig.same(rig.check(device.start()))
    finally:
        state.write_text(before[0])
        mark.write_text(before[1])
    assert record.timing is not None
    assert record.device.state_after == record.device.state
    distrusted = [reason for reason in record.timing.verdict.reasons if "holds its speed back" in reason]
    assert bool(distrusted) is bool(says)
    if says:
        assert record.timing.verdict.outcome is Outcome.INCONCLUSIVE
        assert any(says in reason for reason in distrusted)


@pytest.mark.parametrize("fault", ["refused", "NaN"])
def test_a_model_that_does_not_run_or_answers_nan(
    fault: str, rig: Rig, phone: Virtual, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """That variant FAILs, exit code 1; the others are judged."""
    models = Path(shutil.copytree(rig.models, tmp_path / "models"))
    content = bytearray((models / "float32.tflite").read_bytes())
    if fault == "refused":
        content = content[:-5000]
    else:
        last_bias = bytes(rig_bias(rig))
        where = bytes(content).find(last_bias)
        assert where > 0
        content[where : where + 4] = np.float32(np.nan).tobytes()
    (models / "float32.tflite").write_bytes(content)
    stored = json.loads((models / "manifest.json").read_text())
    for entry in stored["variants"]:
        if entry["kind"] == "float32":
            import hashlib

            entry["sha256"], entry["size_bytes"] = hashlib.sha256(content).hexdigest(), len(content)
    (models / "manifest.json").write_text(json.dumps(stored))
    words = arguments(rig, phone.start(), tmp_path / "c.json")
    words[words.index("--models") + 1] = str(models)
    assert main(words) == 1
    by_kind = {cell["variant"]: cell["verdict"] for cell in json.loads((tmp_path / "c.json").read_text())["cells"]}
    assert by_kind["float32"]["outcome"] == "FAIL"
    assert ("NaN" if fault == "NaN" else "refused: ") in by_kind["float32"]["reasons"][0]
    here = {cell.name: cell.verdict.outcome for cell in rig.local.cells}
    assert by_kind["int8"]["outcome"] == here["int8"]


def rig_bias(rig: Rig) -> bytes:
    """The dense layer's first weights as the float32 file holds them."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(rig.models / "float32.tflite"))
    interpreter.allocate_tensors()
    for detail in interpreter.get_tensor_details():
        if tuple(detail["shape"]) in ((11, 64), (11, 256)):
            return np.asarray(interpreter.get_tensor(detail["index"]), np.float32).tobytes()[:64]
    raise AssertionError("no dense layer")


# --- the host ---------------------------------------------------------------------------------------------------------


def test_the_host_is_killed_and_started_again(rig: Rig, phone: Virtual, tmp_path: Path) -> None:
    """kill -9 after the first answers: the worker there ends, and the next run does not compute them again."""
    address = phone.start()
    clean(phone)
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", *arguments(rig, address, tmp_path / "c.json")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (results := list(harness_folder(phone).glob("jobs/*/results/float32.npz"))):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    signal_worker(phone, signal.SIGSTOP)  # so that it is surely in mid-run
    process.kill()
    process.communicate()
    signal_worker(phone, signal.SIGCONT)
    before = results[0].stat().st_ino
    rig.same(rig.check(address, keep=True))
    assert results[0].stat().st_ino == before
    clean(phone)


# --- ssh --------------------------------------------------------------------------------------------------------------


def test_a_changed_host_key(rig: Rig, pi: Virtual, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and what to do where the change was expected."""
    address = pi.start()
    known = pi.root.parent / "known_hosts"
    before = known.read_text()
    host, kind, _ = before.split()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    try:
        known.write_text(f"{host} {kind} {(tmp_path / 'other.pub').read_text().split()[1]}\n")
        message = refusal(capsys, main(arguments(rig, address, tmp_path / "c.json")))
        assert "host key has changed" in message
        assert "ssh-keygen -R" in message
        known.write_text("")
        assert "not known yet" in refusal(capsys, main(arguments(rig, address, tmp_path / "c.json")))
    finally:
        known.write_text(before)


def test_a_password_is_asked(rig: Rig, pi: Virtual, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and ssh-copy-id, without a prompt."""
    address = pi.start()
    keys = pi.root / "home/pi/.ssh/authorized_keys"
    before = keys.read_bytes()
    keys.write_bytes(b"")
    try:
        message = refusal(capsys, main(arguments(rig, address, tmp_path / "c.json")))
    finally:
        keys.write_bytes(before)
    assert "ssh-copy-id" in message


@pytest.mark.parametrize(
    ("address", "because"),
    [
        ("ssh://127.0.0.1:1", "refuses the connection"),
        ("ssh://nosuchhost.invalid", "no machine of that name"),
        ("ssh://-oProxyCommand=touch executed", "expected local, ssh://"),
        ("ssh://a b", "expected local, ssh://"),
        ("telnet://x", "expected local, ssh://"),
        ("adb://x?python=y", "unknown option 'python'"),
    ],
)
def test_addresses_that_lead_nowhere(
    address: str,
    because: str,
    rig: Rig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exit code 2 and one line each."""
    monkeypatch.chdir(tmp_path)
    assert because in refusal(capsys, main(arguments(rig, address, tmp_path / "c.json")))
    assert not (tmp_path / "executed").exists()


BANNER = """
echo 'Welcome to DietPi'; echo 'a line {"ended": 0}'; echo 'and another'
echo 'a warning' >&2; printf 'no newline'; printf 'nor here' >&2
"""


def test_a_login_that_prints(rig: Rig, pi: Virtual) -> None:
    """A .bashrc that prints lines, on both streams and without a newline at their end: the check is as ever."""
    users, home = pi.root / "etc/passwd", pi.root / "home/pi"
    before = users.read_text()
    users.write_text(before.replace("/home/pi:/bin/sh", "/home/pi:/bin/bash"))
    (home / ".bashrc").write_text(BANNER)
    try:
        config = pi.start().partition("config=")[2]
        command = ["ssh", "-F", config, "virtual-pi", "echo end"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True)
        assert shown.stdout.endswith("and another\nno newlineend\n")
        assert "nor here" in shown.stderr
        clean(pi)
        record = rig.same(rig.check(pi.start()))
    finally:
        users.write_text(before)
        (home / ".bashrc").unlink()
    assert record.device.name == "virtual pi"
    assert record.device.machine == os.uname().machine


def test_a_python_of_32_bits(rig: Rig, pi: Virtual) -> None:
    """32 bits on a 64-bit kernel, as a stand-in says: it gets a 64-bit Python, and the check is whole."""
    python = pi.root / "usr/local/bin/python3"
    python.parent.mkdir(parents=True, exist_ok=True)
    python.write_text('#!/bin/sh\n/usr/bin/python3 "$@" | sed s/python_bits=64/python_bits=32/\n')
    python.chmod(0o755)
    try:
        record = rig.same(rig.check(pi.start()))
    finally:
        python.unlink()
    assert record.device.machine == {"x86_64": "i686", "aarch64": "armv7l"}[os.uname().machine]
    assert record.machine.machine == os.uname().machine  # of the Python that was brought along
    assert pushed(record)["runtime"] > 1_000_000


def test_an_ssh_connection_cut_in_mid_run(rig: Rig, pi: Virtual) -> None:
    """It is waited for, and the check is complete."""
    pi.start()
    config = pi.root.parent / "ssh_config"
    port = next(int(line.split()[1]) for line in config.read_text().splitlines() if line.strip().startswith("Port"))
    cable = Cable(port)
    cut = config.with_name("cut_config")
    cut.write_text(config.read_text().replace(f"Port {port}", f"Port {cable.port}\n  HostKeyAlias [127.0.0.1]:{port}"))
    try:
        with at("dynamic_range", cable.cut) as progress:
            rig.same(rig.check(f"ssh://virtual-pi?config={cut}", progress))
    finally:
        cable.close()


def test_several_devices_one_of_them_gone(
    rig: Rig, phone: Virtual, pi: Virtual, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others are checked and recorded, each in a file of its own; the lost one is named; exit code 2."""
    adb("kill-server")  # both phones' threads start it
    words = arguments(rig, pi.start(), tmp_path / "c.json", "--device", phone.start(), "--device", "adb://gone")
    assert main(words) == 2
    captured = capsys.readouterr()
    assert re.search("adb://gone: (not|no device is) connected", captured.err)
    records = sorted(tmp_path.glob("c.*.json"))
    assert len(records) == 2
    for path in records:
        assert json.loads(path.read_text())["schema"] == "harness-record/4"
        assert main(["verdict", str(path)]) == EXIT_CODES[rig.local.outcome]


def test_a_device_named_twice_is_refused(rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2."""
    assert "twice" in refusal(capsys, main(arguments(rig, "adb://a", tmp_path / "c.json", "--device", "adb://a")))


def test_a_device_in_use_is_refused(
    rig: Rig, phone: Virtual, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two harnesses on one device: the second is told by whom it is used, exit code 2."""
    address = phone.start()
    rig.check(address)
    holder = harness_folder(phone) / "lock"
    with holder.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (holder.parent / "lock.owner").write_text("1 otherhost process 7 since 2026-01-01 00:00 UTC\n")
        message = refusal(capsys, main(arguments(rig, address, tmp_path / "c.json")))
    assert "in use by another harness (otherhost process 7" in message


def test_adb_is_not_installed(
    rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2 and how to install it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    message = refusal(capsys, main(arguments(rig, "adb://x", tmp_path / "c.json")))
    assert "apt-get install adb" in message


def test_nothing_but_one_line_is_said(rig: Rig) -> None:
    """A set-up error is an exception of its own kind, for programs too."""
    done = rig.check("adb://nowhere", silent)
    assert isinstance(done.problem, SetupError)
