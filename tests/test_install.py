"""Where the package installs, and what it says where a part of it is missing."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.core import extras
from tests.conftest import ROOT

DEVICE_PYTHONS = ("3.11", "3.12", "3.13", "3.14")
TENSORFLOW_PYTHONS = ("3.11", "3.12", "3.13")
MACHINES = ("x86_64", "aarch64")
BASE, EVERY_EXTRA = (), ("--all-extras",)
pytestmark = pytest.mark.xdist_group("install")  # one process asks the index
Packages = dict[str, str]  # version by name


def resolved(python: str, machine: str, options: tuple[str, ...]) -> Packages:
    """What pip would install there, wheels only."""
    command = ["uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--only-binary", ":all:"]
    command += ["--no-python-downloads", "--python", sys.executable]
    command += ["--python-version", python, "--python-platform", f"{machine}-manylinux_2_28", *options]
    done = subprocess.run([*command, ROOT / "pyproject.toml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(line.split("==") for line in done.stdout.splitlines())


@pytest.fixture(scope="module")
def resolutions() -> dict[tuple[str, str, tuple[str, ...]], Packages]:
    """Of every Python and machine, with and without the extras; at once, since uv mostly waits for the index."""
    cases = list(itertools.product(DEVICE_PYTHONS, MACHINES, (BASE, EVERY_EXTRA)))
    with ThreadPoolExecutor(len(cases)) as pool:
        return dict(zip(cases, pool.map(lambda case: resolved(*case), cases), strict=True))


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("python", DEVICE_PYTHONS)
def test_what_a_device_needs_has_wheels(python: str, machine: str, resolutions: dict[object, Packages]) -> None:
    """The base package resolves, with each Python's current NumPy and SciPy and without TensorFlow."""
    packages = resolutions[python, machine, BASE]
    assert {"ai-edge-litert", "numpy", "scipy", "pillow", "msgspec"} <= set(packages)
    assert not {"tensorflow", "tensorflow-cpu", "keras"} & set(packages)
    if python != "3.11":  # its last NumPy is 2.4, its last SciPy 1.17
        assert numbers(packages["numpy"]) >= (2, 5)
        assert numbers(packages["scipy"]) >= (1, 18)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("python", DEVICE_PYTHONS)
def test_every_extra_has_wheels(python: str, machine: str, resolutions: dict[object, Packages]) -> None:
    """All extras resolve together; TensorFlow is among them wherever it has wheels."""
    packages = resolutions[python, machine, EVERY_EXTRA]
    tensorflow = "tensorflow-cpu" if machine == "x86_64" else "tensorflow"
    assert (tensorflow in packages) == (python in TENSORFLOW_PYTHONS)
    assert packages["litert-quantizer"] == "0.11.0"


def test_the_classifiers_name_the_pythons() -> None:
    """pyproject.toml names every Python that is tested here, and sets no upper bound."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {line.rpartition(" ")[2] for line in project["classifiers"] if "Python ::" in line}
    assert named == set(DEVICE_PYTHONS)
    assert project["requires-python"] == ">=3.11"


def test_tensorflow_is_missing_on_a_python_without_its_wheels() -> None:
    """One line names the Pythons that can convert; elsewhere, the extra to install."""
    said = str(extras.missing("convert", "this step needs TensorFlow", (3, 14)))
    assert said == (
        "this step needs TensorFlow; TensorFlow has no wheels for Python 3.14: run this step with Python 3.11 to 3.13"
    )
    assert TENSORFLOW_PYTHONS[-1] == ".".join(map(str, extras.NEWEST_PYTHON_FOR_TENSORFLOW))
    assert "pip install '.[convert]'" in str(extras.missing("convert", "", (3, 13)))


def test_nothing_says_to_install_the_harness_from_an_index() -> None:
    """No package index has it: documents and messages install from the clone or from a packed wheel."""
    texts = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/**/*.py"), *ROOT.glob("notebooks/*.ipynb")]
    wrong = [str(path) for path in texts if "pip install" in (text := path.read_text()) and _from_index(text)]
    assert wrong == []


def _from_index(text: str) -> bool:
    return any(f"pip install {quote}tflite-harness" in text for quote in ("", "'", '"', "-U ", "-e "))
