"""The documents as a site: every link leads somewhere, and the page that leads to a release does what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

BLOCK = re.compile(r'^```(python|toml|sh)(?: title="([^"\n]+)")?\n(.*?)^```$', re.M | re.S)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built strictly: a link, an anchor or a page that is missing ends it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_has_the_commands_the_reference_and_the_sources(site: Path) -> None:
    assert "harness verify-attestation" in (site / "commands" / "index.html").read_text()
    assert "HarnessCheck" in (site / "reference" / "index.html").read_text()
    policy = site / "source" / "harness" / "judge" / "policy.toml"
    assert policy.read_bytes() == (ROOT / "harness" / "judge" / "policy.toml").read_bytes()


def test_the_site_needs_no_other_network(site: Path) -> None:
    """Fonts, scripts and pictures are its own."""
    for page in site.rglob("*.html"):
        for tag in re.findall(r"<(?:script|img|link)\b[^>]*>", page.read_text()):
            if 'rel="canonical"' not in tag:
                assert "://" not in tag, f"{page.relative_to(site)}: {tag}"


def test_a_gated_release_from_its_own_text(tmp_path: Path) -> None:
    """docs/gated-release.md, block by block, in an empty folder."""
    (tmp_path / "bin").mkdir()
    harness = tmp_path / "bin" / "harness"
    harness.write_text(f'#!/bin/sh\nexec {sys.executable} -m harness "$@"\n')
    harness.chmod(0o755)
    path = f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    blocks = BLOCK.findall((ROOT / "docs" / "gated-release.md").read_text())
    assert len(blocks) > 8
    for kind, title, text in blocks:
        if kind != "sh":
            (tmp_path / title).write_text(text)
            continue
        command = ["bash", "-eo", "pipefail", "-c", text]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "released.tflite").exists()
