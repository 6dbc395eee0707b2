"""The package and the documents."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from tests.conftest import ROOT


def test_the_wheel_holds_harness_and_converters_only(tmp_path: Path) -> None:
    """No top-level package called data, models or tests ends up in site-packages."""
    subprocess.run(
        ["uv", "build", "--quiet", "--wheel", "--out-dir", tmp_path, "--python", sys.executable, ROOT], check=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
        assert {"harness/run/worker.py", "harness/output/report/templates/base.html"} <= set(archive.namelist())
    assert {top for top in tops if not top.endswith(".dist-info")} == {"harness", "converters"}


def test_each_package_imports_only_those_below_it(tmp_path: Path) -> None:
    """The layers of pyproject.toml; an import upwards is found."""

    def lint(root: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
        command += ["--no-cache", "--config", str(root / "pyproject.toml")]
        return subprocess.run(command, cwd=root, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ""})

    done = lint(ROOT)
    assert done.returncode == 0, done.stdout
    for package in ("harness", "converters"):
        shutil.copytree(ROOT / package, tmp_path / package)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "harness/images/spec.py").open("a") as file:
        file.write("import converters.fold\n")
    done = lint(tmp_path)
    assert done.returncode == 1
    assert "harness.images.spec -> converters.fold" in done.stdout


def test_ci_runs_the_readmes_test_command() -> None:
    """The last line of .ci/run stands in README.md."""
    command = (ROOT / ".ci" / "run").read_text().splitlines()[-1]
    assert command in (ROOT / "README.md").read_text()


def test_every_link_in_the_documents_leads_somewhere() -> None:
    """Relative links of the Markdown files name files that exist."""
    for document in (*ROOT.glob("*.md"), *ROOT.glob("*/*.md")):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_contributing_names_every_package() -> None:
    """The table of packages is that of the layers, from top to bottom."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    assert [name.strip("/").replace("/", ".") for name in re.findall(r"(?m)^\| `([\w/]+)` \|", text)] == layers


def test_no_module_is_named_like_one_of_the_standard_library() -> None:
    """A worker or a script beside it would import the wrong one."""
    modules = [path for package in ("harness", "converters") for path in (ROOT / package).rglob("*.py")]
    assert not [str(path) for path in modules if path.stem in sys.stdlib_module_names]


def test_the_glossary_has_ten_terms() -> None:
    """Each a row; a reader learns them in one go."""
    assert len(re.findall(r"(?m)^\| (?!term|-)", (ROOT / "docs" / "glossary.md").read_text())) == 10
