"""Two hosts in two network namespaces, each with a link and a phone of its own; one link is cut in mid-run."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.check import fleet
from harness.cluster.client import Cluster
from harness.core.progress import NO_BARS
from harness.records import sharded_arrays
from harness.run.devices import bundle
from harness.run.devices.virtual import Virtual
from tests.check.rig import Check
from tests.cluster.conftest import free_port, make_certificate, tls_flags, wait_for
from tests.conftest import FEW_IMAGES_POLICY, ROOT, quiet_step
from tests.needs import needs

HERE = "10.231.{}.1"  # this end of each host's link
THERE = "10.231.{}.2"
PHONE = "adb://127.0.0.1:{}"  # in the namespace
PORTS = {1: 6571, 2: 6572}
START_PHONE = """
import platform, sys
from pathlib import Path
from harness.run.devices.virtual import Virtual
Virtual("phone", Path(sys.argv[1]), platform.machine()).start(int(sys.argv[2]))
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Hosts:
    """Namespaces harness-1 and harness-2, a scheduler on this side, a lab worker and a virtual phone in each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"tls://{HERE.format(1)}:{free_port()}"
        self.keys = make_certificate(folder)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.phones = {number: Virtual("phone", folder / f"phone-{number}", platform.machine()) for number in PORTS}

    def up(self) -> None:
        bundle.complete(platform.machine())  # made on this side: a namespace has no way to the packages
        for phone in self.phones.values():
            phone.start()
            phone.stop()
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
        host, port = self.address.removeprefix("tls://").split(":")
        self.start("scheduler", [], "scheduler", "--host", host, "--port", port, "--lost-after", "3")
        for number, adb_port in PORTS.items():
            inside = ["ip", "netns", "exec", f"harness-{number}"]
            start = [sys.executable, "-c", START_PHONE, str(self.folder / f"phone-{number}"), str(adb_port)]
            subprocess.run([*inside, *start], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
            named = ["--host", THERE.format(number), "--name", f"h{number}", "--device", PHONE.format(adb_port)]
            self.start(f"h{number}", inside, "worker", self.address, *named)
        wait_for(lambda: all("offered to" in (self.folder / f"h{n}.log").read_text() for n in (1, 2)))

    def start(self, name: str, inside: list[str], *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("w") as log:
            command = [*inside, sys.executable, "-m", "harness", "lab", *arguments, *tls_flags(self.keys)]
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
        for number, phone in self.phones.items():
            inside = ["ip", "netns", "exec", f"harness-{number}"]
            subprocess.run([*inside, "adb", "kill-server"], check=False, capture_output=True)
            phone.remove()
            subprocess.run(["ip", "link", "delete", f"harness-l{number}"], check=False, capture_output=True)
            subprocess.run(["ip", "netns", "delete", f"harness-{number}"], check=False, capture_output=True)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    needs("namespaces", "devices")
    found = Hosts(tmp_path)
    try:
        found.up()
        yield found
    finally:
        found.down()


@pytest.mark.slow
def test_a_cut_link_leaves_its_devices_inconclusive_until_it_is_mended(
    hosts: Hosts, check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hosts, two phones: with a link cut in mid-run two devices pass, two say why; mended, only those two run."""
    monkeypatch.setattr("harness.images.shards.usual_size", lambda spec: 11)
    text = f'models = "{check.models}"\nreference = "{check.model}"\ndata = "{check.data}"\nlatency = false\n'
    text += f'policy = "{FEW_IMAGES_POLICY}"\nresults = "{tmp_path / "results"}"\nvariants = ["float32"]\n'
    text += "".join(f'[[device]]\nuri = "local://h{n}"\n[[device]]\nuri = "{PHONE.format(PORTS[n])}"\n' for n in PORTS)
    path = tmp_path / "fleet.toml"
    path.write_text(text)
    asked = fleet.read(path)
    second = sharded_arrays.folder_of(tmp_path / "results" / "local-h2.json")

    def cut() -> None:
        wait_for(lambda: len(list(second.glob("0*.npz"))) >= 2)
        hosts.cut(2)

    with Cluster(hosts.address, hosts.keys, patience_s=2) as engine:
        thread = threading.Thread(target=cut)
        thread.start()
        done = fleet.run(asked, engine, str(path), quiet_step, NO_BARS)
        thread.join()
        assert [one.outcome for one in done] == ["PASS", "PASS", "INCONCLUSIVE", "INCONCLUSIVE"]
        for one in done[2:]:
            assert "out of sight" in one.reasons[0]
        kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "results").rglob("0*.npz")}
        hosts.mend(2)
        wait_for(lambda: {"local://h2", PHONE.format(PORTS[2])} <= engine.devices().keys())
        again = fleet.run(asked, engine, str(path), quiet_step, NO_BARS)
    assert [one.outcome for one in again] == ["PASS"] * 4
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert len(list(second.glob("0*.npz"))) == 10
