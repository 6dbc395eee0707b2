"""The Containerfile's steps, in a bare root of its distribution, as containers cannot be built everywhere.

Not among the tests, because it takes a minute.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.conftest import ROOT
from tests.needs import needs


def instructions(target: str) -> Iterator[tuple[str, str]]:
    """Those of one stage of the Containerfile, without its FROM."""
    text = (ROOT / "Containerfile").read_text().replace("\\\n", " ")
    stages = re.split(r"^FROM ", text, flags=re.M)[1:]
    (stage,) = (stage for stage in stages if stage.splitlines()[0].endswith(f"AS {target}"))
    for line in stage.splitlines()[1:]:
        if line.strip():
            word, _, rest = line.partition(" ")
            yield word, rest


def test_the_containers_steps(tmp_path: Path, benchmark: BenchmarkFixture) -> None:
    """The image for checking is built, and its command is `harness`."""
    benchmark.pedantic(build, args=(tmp_path,), rounds=1)


def build(tmp_path: Path) -> None:
    """Run the stage `check` and then its command."""
    needs("devices")
    root, bundle = tmp_path / "root", "/etc/host-certificates.crt"
    subprocess.run(["mmdebstrap", "--variant=apt", "--quiet", "bookworm", root], check=True, capture_output=True)
    environment = {name: text for name, text in os.environ.items() if name.startswith(("PIP_", "UV_", "SSL_CERT_FILE"))}
    # The way to the package index, copied: nothing in the root leads out of it.
    for source, target in (
        ("/etc/resolv.conf", "/etc/resolv.conf"),
        ("/etc/pip.conf", "/etc/pip.conf"),
        (os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"), bundle),
    ):
        if Path(source).exists():
            shutil.copy(source, root / target[1:])
    environment |= {"HOME": "/root", "SSL_CERT_FILE": bundle, "PIP_CERT": bundle}
    folder, command = "/", []
    for word, rest in instructions("check"):
        if word == "ENV":
            name, _, value = rest.partition("=")
            environment[name] = value
        elif word == "COPY":
            (root / "src").mkdir()
            for name in allowed():
                copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
                copy(ROOT / name, root / "src" / name)
        elif word == "WORKDIR":
            folder = rest
            (root / rest.strip("/")).mkdir(exist_ok=True)
        elif word == "ENTRYPOINT":
            command = json.loads(rest)
        else:
            assert word == "RUN", word
            done = chroot(root, folder, rest, environment)
            assert done.returncode == 0, f"{rest}\n{done.stdout}\n{done.stderr}"
    shown = chroot(root, folder, shlex.join([*command, "--version"]), environment)
    assert shown.stdout.startswith("harness "), shown.stderr
    assert "ai-edge-litert 2.3" in shown.stdout
    assert "makes variants: nothing installed" in shown.stdout


def allowed() -> list[str]:
    """What .containerignore lets in."""
    return [line[1:] for line in (ROOT / ".containerignore").read_text().splitlines() if line.startswith("!")]


def chroot(root: Path, folder: str, script: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment}
    command = [
        shutil.which("chroot", path="/usr/sbin:/usr/bin") or "chroot",
        str(root),
        "/bin/sh",
        "-ec",
        f"cd {folder}; {script}",
    ]
    return subprocess.run(command, env=environment, capture_output=True, text=True)
