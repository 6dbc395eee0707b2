"""A lab of real processes on loopback: spread over two workers, and every way in which one of them can be lost."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import distributed
import numpy as np
import pytest

from harness.check.engine import LocalEngine
from harness.check.pipeline import CheckedRun
from harness.check.shard_task import RefusedError, ShardJob
from harness.cli import main
from harness.cluster import client as cluster
from harness.cluster import serve
from harness.cluster.client import Cluster
from harness.core.errors import SetupError
from harness.core.outcome import Outcome
from harness.images import dataset
from harness.records import sharded_arrays
from tests.check.rig import Check, figures
from tests.cluster.conftest import Lab, make_certificate, start, tls_flags, wait_for
from tests.conftest import DIGITS, ROOT, refusal

SIZE = 11
BOTH = ["local://one", "local://two"]


@pytest.fixture(scope="module")
def expected(check: Check, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What one process makes of it."""
    with LocalEngine(["local"]) as engine:
        return figures(check.run(engine, ["local"], tmp_path_factory.mktemp("expected") / "c.json", SIZE).record)


def disturbed(check: Check, lab: Lab, record: Path, fault: Callable[[], None], patience_s: float = 30) -> CheckedRun:
    """A check over both workers, and a fault once the first shard is done."""
    folder, faults = sharded_arrays.folder_of(record), []

    def wait_and_do() -> None:
        wait_for(lambda: list(folder.glob("0*.npz")))
        fault()
        faults.append(True)

    with lab.cluster(patience_s) as engine:
        thread = threading.Thread(target=wait_and_do)
        thread.start()
        found = check.run(engine, BOTH, record, SIZE)
        thread.join()
    assert faults
    return found


def test_two_workers_give_the_verdict_of_one_process(
    standing_lab: Lab, check: Check, expected: str, tmp_path: Path
) -> None:
    """The record's JSON is the same, byte for byte, and both had a part in it. They listen on loopback alone."""
    with standing_lab.cluster() as engine:
        assert cluster.choose(engine.devices(), [], standing_lab.address) == BOTH
        found = check.run(engine, BOTH, tmp_path / "lab.json", SIZE)
    assert figures(found.record) == expected
    for process in standing_lab.processes.values():
        assert listening(process.pid) == {"0100007F"}


def test_a_killed_workers_shards_go_elsewhere(lab: Lab, check: Check, expected: str, tmp_path: Path) -> None:
    """Killed in mid-run: the other worker does the rest, and nothing is counted twice."""
    found = disturbed(check, lab, tmp_path / "c.json", lambda: lab.kill("two"), patience_s=1)
    assert figures(found.record) == expected


def test_a_restarted_scheduler_costs_nothing_that_is_done(
    lab: Lab, check: Check, expected: str, tmp_path: Path
) -> None:
    """Killed and started again in mid-run: workers and check find it again, and the verdict is the same."""

    def restart() -> None:
        lab.kill("scheduler")
        time.sleep(1)
        lab.scheduler()

    assert figures(disturbed(check, lab, tmp_path / "c.json", restart).record) == expected


def test_without_any_worker_the_rest_is_inconclusive_until_run_again(
    lab: Lab, check: Check, expected: str, tmp_path: Path
) -> None:
    """All workers gone: what is finished is kept, the reason is given; run again, only the rest is done."""

    def kill() -> None:
        lab.kill("one")
        lab.kill("two")

    record = tmp_path / "c.json"
    found = disturbed(check, lab, record, kill, patience_s=1)
    float32 = found.record.cells[0].verdict
    assert float32.outcome is Outcome.INCONCLUSIVE
    assert "out of sight for 1 s" in float32.reasons[0]
    kept = {path: path.stat().st_mtime_ns for path in sharded_arrays.folder_of(record).glob("0*.npz")}
    assert 0 < len(kept) < 10
    lab.worker("one")
    lab.ready("one")
    with lab.cluster() as engine:
        assert figures(check.run(engine, ["local://one"], record, SIZE).record) == expected
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_frozen_worker_is_given_up(empty_lab: Lab, check: Check, expected: str, tmp_path: Path) -> None:
    """Stopped, as an unplugged host is: no connection ends, but it gives no sign of life."""
    lab = start(empty_lab, "--lost-after", "2")
    frozen = lab.processes["two"]
    try:
        found = disturbed(check, lab, tmp_path / "c.json", lambda: frozen.send_signal(signal.SIGSTOP), patience_s=1)
    finally:
        frozen.send_signal(signal.SIGCONT)
    assert figures(found.record) == expected


def a_job(content: bytes = b"", name: str = "float32") -> ShardJob:
    data = dataset.build(np.zeros((1, *DIGITS.shape), np.uint8), [1], ["1_1.jpg"], DIGITS)
    return ShardJob(0, 1, True, data, {name: content})


def test_a_worker_runs_only_on_devices_that_it_offered(standing_lab: Lab, tmp_path: Path) -> None:
    """An address with options of the sender's, which would have the worker run a command, is refused."""
    trace, config = tmp_path / "was here", tmp_path / "config"
    config.write_text(f"Host x\n  ProxyCommand touch '{trace}'\n")
    with distributed.Client(standing_lab.address, set_as_default=False, timeout=10) as client:
        asked = client.submit(serve.run_offered, f"ssh://x?config={config}", a_job(), pure=False)
        with pytest.raises(RefusedError, match=r"does not offer 'ssh://x\?config=.*it offers \['local://"):
            asked.result(timeout=60)
    assert not trace.exists()


def test_names_in_a_job_are_no_paths(standing_lab: Lab) -> None:
    """A variant that is called as a path to elsewhere is refused; nothing is written there."""
    with standing_lab.cluster() as engine:
        asked = engine.submit("local://one", a_job(b"content", "../../../x"))
        with pytest.raises(SetupError, match="expected a variant's name, not a path"):
            asked.result(timeout=60)
    assert not list(standing_lab.folder.rglob("x*"))


def test_workers_of_another_version_are_refused(
    standing_lab: Lab, check: Check, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is run, by name; and a scheduler's worker that is none of ours."""
    code = tmp_path / "older"
    for package in ("harness", "converters"):
        shutil.copytree(ROOT / package, code / package)
    with (code / "harness" / "run" / "worker.py").open("a") as file:
        file.write("# another version\n")
    standing_lab.worker("older", code)
    standing_lab.ready("older")
    arguments = [
        "check",
        "--scheduler",
        standing_lab.address,
        "--models",
        str(check.models),
        "--reference",
        str(check.model),
    ]
    arguments += ["--reference", str(check.model), "--data", str(check.data), "--json", str(tmp_path / "c.json")]
    try:
        said = refusal(capsys, main(arguments))
    finally:
        standing_lab.kill("older", signal.SIGTERM)
    assert "worker older has worker_sha256" in said
    assert "install the same tflite-harness on both" in said


def test_a_scheduler_that_does_not_answer_is_refused(
    check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No scheduler there, no address, not all files for TLS: one line each, with the next command."""
    monkeypatch.setattr(cluster, "CONNECT_S", 1.0)
    base = ["check", "--models", str(check.models), "--reference", str(check.model), "--data", str(check.data)]
    base += ["--json", str(tmp_path / "c.json")]
    for address in ("tcp://127.0.0.1:1", "nonsense", "udp://127.0.0.1:8786", "tcp://127.0.0.1:x"):
        assert "harness lab scheduler" in refusal(capsys, main([*base, "--scheduler", address]))
    assert "TLS needs all three" in refusal(capsys, main([*base, "--scheduler", "tls://a:1", "--tls-ca", "no.pem"]))


@pytest.mark.parametrize(
    "words",
    [
        ["lab", "scheduler", "--host", "0.0.0.0"],
        ["lab", "worker", "tcp://127.0.0.1:8786", "--host", "192.0.2.2"],
        ["lab", "worker", "tcp://192.0.2.1:8786", "--host", "127.0.0.1"],
        ["check", "--scheduler", "tcp://192.0.2.1:8786"],
        ["check", "--scheduler", "tcp://lab.example:8786"],
    ],
)
def test_nothing_is_open_to_other_hosts_without_tls(
    words: list[str], check: Check, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever connects may run code, so scheduler, worker and check refuse: one line that names the flags."""
    if words[0] == "check":
        words = [*words, "--models", str(check.models), "--reference", str(check.model), "--data", str(check.data)]
        words += ["--json", str(tmp_path / "c.json")]
    assert "it needs TLS: name --tls-ca" in refusal(capsys, main(words))


def test_a_worker_listens_to_no_other_host_unless_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A scheduler elsewhere needs an address that it may reach the worker by."""
    keys = make_certificate(tmp_path)
    words = ["lab", "worker", "tls://192.0.2.1:8786", *tls_flags(keys)]
    assert "--host ADDRESS" in refusal(capsys, main(words))


def test_tls(empty_lab: Lab, check: Check, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scheduler, worker and check with certificates of one authority understand each other, and nobody else."""
    monkeypatch.setattr(cluster, "CONNECT_S", 3.0)
    keys = make_certificate(tmp_path / "ours")
    empty_lab.flags = tls_flags(keys)
    empty_lab.scheduler()
    empty_lab.worker("one")
    empty_lab.ready("one")
    with Cluster(empty_lab.address, keys) as engine:
        assert figures(check.run(engine, ["local://one"], tmp_path / "c.json", SIZE).record) == expected
    with pytest.raises(SetupError, match="tls:// needs --tls-ca"), Cluster(empty_lab.address):
        pass
    others = make_certificate(tmp_path / "others")
    with pytest.raises(SetupError, match="no scheduler answers"), Cluster(empty_lab.address, others):
        pass


def listening(pid: int) -> set[str]:
    """The addresses that a process listens on, as the kernel writes them: 127.0.0.1 is 0100007F."""
    sockets = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in sockets:
                found.add(words[1].split(":")[0])
    return found
