"""What is published: the steps of the release workflow, run as they stand there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

pytestmark = pytest.mark.xdist_group("install")
WORKFLOWS = ROOT / ".github" / "workflows"


def steps(workflow: str, job: str) -> dict[str, str]:
    """The scripts of a job's named steps."""
    listed = yaml.safe_load((WORKFLOWS / f"{workflow}.yml").read_text())["jobs"][job]["steps"]
    return {step["name"]: step["run"] for step in listed if "run" in step}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `dist` of the workflow's step, in a clone with a tag."""
    folder = tmp_path_factory.mktemp("release") / "clone"
    subprocess.run(["git", "clone", "--quiet", "--no-tags", ROOT, folder], check=True)
    for path in ("pyproject.toml", "harness", "converters", "constraints.txt"):  # as they are here, committed or not
        source, target = ROOT / path, folder / path
        shutil.copytree(source, target, dirs_exist_ok=True) if source.is_dir() else shutil.copy(source, target)
    as_someone = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a"]
    subprocess.run([*as_someone, "commit", "--quiet", "--all", "--allow-empty", "--message", "x"], check=True)
    subprocess.run([*as_someone, "tag", "v7.8.9"], check=True)
    script = steps("release", "build")["Build"]
    lines = [line for line in script.splitlines() if "pip install" not in line]  # the environment of the tests has them
    run(lines, folder)
    return folder / "dist"


def run(lines: list[str], folder: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "NO_COLOR": "1"}
    command = ["bash", "-eo", "pipefail", "-c", "\n".join(lines)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_version_is_the_tags(built: Path) -> None:
    assert {path.name for path in built.iterdir() if path.name != ".gitignore"} == {
        "tflite_harness-7.8.9-py3-none-any.whl",
        "tflite_harness-7.8.9.tar.gz",
    }


def test_what_is_published_holds_no_images_and_no_weights(built: Path) -> None:
    """Code, documents and their pictures."""
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = archive.getnames()
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        names += archive.namelist()
    pictures = [name for name in names if re.search(r"\.(jpe?g|png|keras|tflite|npz|h5)$", name)]
    assert all("/docs/pictures/" in name for name in pictures), pictures
    assert any(name.endswith("harness/pytest_plugin.py") for name in names)


def test_the_wheel_runs_in_a_new_environment(built: Path, tmp_path: Path) -> None:
    """As pipx does it; the software bill of materials names what the environment contains."""
    script = steps("release", "build")["List what an installation contains"]
    run(script.splitlines(), built.parent)
    listed = json.loads((built.parent / "sbom.json").read_text())
    versions = {component["name"]: component["version"] for component in listed["components"]}
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert versions["tflite-harness"] == "7.8.9"
    assert versions["ai-edge-litert"] == pinned["ai-edge-litert"]
    shown = subprocess.run(
        [built.parent / "sbom/bin/harness", "--version"], capture_output=True, text=True, cwd=tmp_path
    )
    assert shown.stdout.startswith("harness 7.8.9\n")
