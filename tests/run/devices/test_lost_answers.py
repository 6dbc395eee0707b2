"""A connection lost after a command was carried out and before its answer came: run again, it does no harm."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from harness.artifacts import manifest
from harness.core.files import sha256
from harness.images import dataset
from harness.run import execute, job
from harness.run.devices.bundle import Bundle, Runtime
from harness.run.devices.remote import Remote
from models.config import DIGITS
from tests.run.devices.rig import Here, silent


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """One to be sent and unpacked: a program that starts this Python."""
    tree, archive = tmp_path / "tree", tmp_path / "runtime.tar.gz"
    (tree / "lib").mkdir(parents=True)
    (tree / "lib" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    with tarfile.open(archive, "w:gz") as file:
        file.add(tree, ".")
    hashes = subprocess.run("sha256sum ./lib/python", shell=True, cwd=tree, capture_output=True, check=True).stdout
    content = archive.read_bytes()
    bundle = Bundle(archive, sha256(content), hashlib.sha256(hashes).hexdigest(), len(content))
    return Runtime(bundle, ("lib/python",), {})


def test_every_answer_is_lost_once(runtime: Runtime, tiny_variants: Path, images: Path, tmp_path: Path) -> None:
    """Lock, runtime, files, plan, worker, results, removal: the outputs are those of a sound connection."""
    contents = manifest.contents(tiny_variants, {"int8": manifest.read(tiny_variants)["int8"]})
    data = dataset.take(dataset.load(images, DIGITS), np.arange(0, 55, 5))
    outputs = []
    for forgetful in (False, True):
        here = Here(tmp_path / f"home-{forgetful}", forgetful=forgetful)
        (folder := tmp_path / f"job-{forgetful}").mkdir()
        device = Remote(here, "harness", lambda *_: runtime)
        with device:
            device.probe()
            result = execute.run(job.write(folder, contents, data, None, 1), silent, device)
        assert result.failures == {}
        outputs.append(result.results["int8"].arrays["outputs"])
        left = {path.name for path in (here.home / "harness").rglob("*")}
        assert not [name for name in left if name.endswith(".part")]
    assert np.array_equal(outputs[0], outputs[1])
    for what in ("flock", "mkdir -p files", "tar -xzf", "cat > ", "mv ", "/job.json", "--tied", "head -c", "ln -sfn"):
        assert any(what in command for command in here.lost), what
