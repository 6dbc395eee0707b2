"""The bundle's ready test in TypeScript, type-checked and run by vitest in apps that are right and wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.cli import main
from tests import store
from tests.needs import needs

PACKAGES = ("vitest@4.1.12", "typescript@7.0.2", "@types/node@26.6.6")
STRICT = ("--noEmit", "--strict", "--noUncheckedIndexedAccess", "--target", "es2022", "--module", "esnext")
RESOLVED = ("--moduleResolution", "bundler", "--types", "node")
APP = """
const app: App = {
  preprocess: async (image) => {
    const same = (bytes: Uint8Array): boolean => Buffer.compare(bytes, image) === 0
    for (const one of golden.images) {
      if (same(await read(one.image))) return changed(await tensor(read, one.input, golden.input))
    }
    throw new Error('an image of no bundle')
  },
  run: async (input) => {
    for (const one of golden.images) {
      const right = await tensor(read, one.input, golden.input)
      if (largestDifference(right, input) === 0 || largestDifference(changed(right), input) === 0)
        return tensor(read, one.output, golden.output)
    }
    throw new Error('a tensor of no image')
  },
}
"""
RIGHT = "const changed = (values: Tensor): Tensor => values\n"
MIRRORED = "const changed = (values: Tensor): Tensor => values.map((_, i) => values[i - (i % 28) + 27 - (i % 28)]!)\n"


def install(folder: Path) -> None:
    (folder / "package.json").write_text('{"type": "module"}')
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", *PACKAGES]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)


@pytest.fixture(scope="module")
def node_modules() -> Path:
    needs("npm")
    return store.obtain("vitest", PACKAGES, install) / "node_modules"


@pytest.mark.parametrize(
    ("change", "code", "named"), [(RIGHT, 3, "input: right"), (MIRRORED, 1, "input: mirrored left to right (")]
)
def test_vitest_runs_the_ready_test_and_writes_a_dump(
    change: str,
    code: int,
    named: str,
    node_modules: Path,
    int8_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A right app passes; one that mirrors images fails at every image, and `harness app` says why from its dump."""
    bundle = Path(shutil.copytree(int8_bundle, tmp_path / "golden"))
    (tmp_path / "node_modules").symlink_to(node_modules)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    text = (bundle / "golden.test.ts").read_text()
    start, end = text.index("const app: App"), text.index("const folder")
    text = text[:start] + text[end:].replace("describe(", change + APP + "\ndescribe(", 1)
    names = "type App, checkImage, largestDifference, load, type Read, type Tensor, tensor"
    (bundle / "golden.test.ts").write_text(text.replace("type App, checkImage, load, type Read", names))
    programs, environment = node_modules / ".bin", os.environ | {"CI": "1", "NO_COLOR": "1"}
    check = [str(programs / "tsc"), *STRICT, *RESOLVED, str(bundle / "golden.test.ts")]
    checked = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=120)
    assert checked.returncode == 0, checked.stdout
    command = [str(programs / "vitest"), "run", "--root", str(tmp_path)]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=120)
    assert (ran.returncode == 0) == (change == RIGHT), ran.stdout + ran.stderr
    assert ("the input tensor differs by" in ran.stdout + ran.stderr) == (change == MIRRORED)
    assert main(["app", str(bundle / "dump.jsonl"), "--golden", str(bundle)]) == code
    assert named in capsys.readouterr().out
