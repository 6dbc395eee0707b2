"""Two hosts in two network namespaces, each with its own link; one is cut in mid-run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import shard_evidence
from harness.lab import fleet
from harness.lab.cluster import Cluster, Keys
from tests.conftest import FEW_IMAGES_POLICY, ROOT, quiet_step
from tests.lab.conftest import Check, free_port, wait_for

HERE = "10.231.{}.1"  # this end of each host's link
THERE = "10.231.{}.2"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Hosts:
    """Namespaces harness-1 and harness-2, a scheduler on this side, a lab worker in each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"tcp://{HERE.format(1)}:{free_port()}"
        self.processes: list[subprocess.Popen[bytes]] = []

    def up(self) -> None:
        for number in (1, 2):
            space, link = f"harness-{number}", f"harness-l{number}"
            ip("netns", "add", space)
            ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
            ip("addr", "add", f"{HERE.format(number)}/24", "dev", link)
            ip("link", "set", link, "up")
            ip("-n", space, "addr", "add", f"{THERE.format(number)}/24", "dev", "eth0")
            ip("-n", space, "link", "set", "eth0", "up")
            ip("-n", space, "link", "set", "lo", "up")
            ip("-n", space, "route", "add", "default", "via", HERE.format(number))
        host, port = self.address.removeprefix("tcp://").split(":")
        self.start("scheduler", [], "scheduler", "--host", host, "--port", port, "--lost-after", "3")
        for number in (1, 2):
            inside = ["ip", "netns", "exec", f"harness-{number}"]
            self.start(
                f"h{number}", inside, "worker", self.address, "--host", THERE.format(number), "--name", f"h{number}"
            )
        wait_for(lambda: all("offered to" in (self.folder / f"h{n}.log").read_text() for n in (1, 2)))

    def start(self, name: str, inside: list[str], *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("w") as log:
            command = [*inside, sys.executable, "-m", "harness", "lab", *arguments]
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            self.processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT))

    def cut(self, number: int) -> None:
        ip("link", "set", f"harness-l{number}", "down")

    def mend(self, number: int) -> None:
        ip("link", "set", f"harness-l{number}", "up")

    def down(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        for number in (1, 2):
            subprocess.run(["ip", "link", "delete", f"harness-l{number}"], check=False, capture_output=True)
            subprocess.run(["ip", "netns", "delete", f"harness-{number}"], check=False, capture_output=True)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    if not shutil.which("ip") or os.geteuid() != 0:
        pytest.skip("network namespaces need root and iproute2 (apt install iproute2)")
    if subprocess.run(["ip", "netns", "add", "harness-try"], capture_output=True, check=False).returncode:
        pytest.skip("network namespaces are not to be had here")
    ip("netns", "delete", "harness-try")
    found = Hosts(tmp_path)
    try:
        found.up()
        yield found
    finally:
        found.down()


def test_a_cut_link_leaves_one_device_inconclusive_until_it_is_mended(
    hosts: Hosts, check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both hosts' devices pass; with a link cut in mid-run one does, the other says why; mended, only that one runs."""
    monkeypatch.setattr("harness.shards.usual_size", lambda spec: 11)
    text = f'models = "{check.models}"\nreference = "{check.model}"\ndata = "{check.data}"\nlatency = false\n'
    text += f'policy = "{FEW_IMAGES_POLICY}"\nresults = "{tmp_path / "results"}"\nvariants = ["float32"]\n'
    path = tmp_path / "fleet.toml"
    path.write_text(text + '[[device]]\nuri = "local://h1"\n[[device]]\nuri = "local://h2"\n')
    asked = fleet.read(path)
    second = shard_evidence.folder_of(tmp_path / "results" / "local-h2.json")

    def cut() -> None:
        wait_for(lambda: len(list(second.glob("0*.npz"))) >= 2)
        hosts.cut(2)

    with Cluster(hosts.address, Keys(), patience_s=2) as engine:
        thread = threading.Thread(target=cut)
        thread.start()
        done, _ = fleet.run(asked, engine, str(path), quiet_step, lambda *_: None)
        thread.join()
        assert [one.outcome for one in done] == ["PASS", "INCONCLUSIVE"]
        assert "out of sight" in done[1].reasons[0]
        kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "results").rglob("0*.npz")}
        hosts.mend(2)
        wait_for(lambda: "local://h2" in engine.devices())
        again, _ = fleet.run(asked, engine, str(path), quiet_step, lambda *_: None)
    assert [one.outcome for one in again] == ["PASS", "PASS"]
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert len(list(second.glob("0*.npz"))) == 10
