"""The wheel that a packed check carries."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from packaging.metadata import Metadata

from harness.check import wheel
from tests.conftest import ROOT


def read(archive: zipfile.ZipFile, name: str) -> bytes:
    """A file of the wheel's own description."""
    return archive.read(next(path for path in archive.namelist() if path.endswith(f".dist-info/{name}")))


def test_the_wheel_is_that_of_the_project(tmp_path: Path) -> None:
    """It holds the same modules, metadata and command as the one that the build system makes."""
    name, content = wheel.build()
    ours = tmp_path / name
    ours.write_bytes(content)
    built = tmp_path / "built"
    command = ["uv", "build", "--quiet", "--wheel", "--out-dir", str(built), "--python", sys.executable, str(ROOT)]
    subprocess.run(command, check=True)
    (of_build_system,) = built.glob("*.whl")
    with zipfile.ZipFile(ours) as wheel_of_ours, zipfile.ZipFile(of_build_system) as reference:
        assert {path for path in wheel_of_ours.namelist() if ".dist-info" not in path} == {
            path for path in reference.namelist() if ".dist-info" not in path
        }
        archives = wheel_of_ours, reference
        metadata = [Metadata.from_email(read(archive, "METADATA"), validate=False) for archive in archives]
        for field in ("name", "requires_python"):
            assert getattr(metadata[0], field) == getattr(metadata[1], field)
        needed = [set(part.requires_dist or ()) for part in metadata]
        assert needed[0] == {requirement for requirement in needed[1] if "extra ==" not in str(requirement)}
        points = [read(archive, "entry_points.txt").split() for archive in archives]
        assert sorted(points[0]) == sorted(points[1])
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["name"] == wheel.NAME


def test_an_installed_wheel_gives_itself(tmp_path: Path) -> None:
    """Away from the clone, the same bytes come from what is installed."""
    name, content = wheel.build()
    (tmp_path / name).write_bytes(content)
    site = tmp_path / "site"
    with zipfile.ZipFile(tmp_path / name) as archive:
        archive.extractall(site)
    code = "import sys; from harness.check import wheel; sys.stdout.buffer.write(wheel.build()[1])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True
    )
    assert done.stdout == content, done.stderr
