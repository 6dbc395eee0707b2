"""The package and the documents."""

from __future__ import annotations

import re
import subprocess
import sys
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
