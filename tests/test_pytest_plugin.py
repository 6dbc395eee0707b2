"""The pytest plugin, in a repository of a user: three lines for a test, the verdict's reasons in its failure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.conftest import FEW_IMAGES_POLICY, ROOT

TESTS = """
import pytest


def test_int8(harness_check):
    assert harness_check("int8").cells[0].variant == "int8"


@pytest.mark.harness(policy="strict.toml")
class TestStrict:
    def test_flips(self, harness_check):
        harness_check("int8")

    @pytest.mark.harness(policy="undecided.toml")
    def test_undecided(self, harness_check):
        harness_check("int8")

    @pytest.mark.harness(policy=None)
    def test_defaults(self, harness_check):
        harness_check("float32")


@pytest.mark.harness(device="adb://no-such-phone", absent="skip")
def test_skipped(harness_check):
    harness_check("int8")


@pytest.mark.harness(device="adb://no-such-phone")
def test_absent(harness_check):
    harness_check("int8")


@pytest.mark.harness(accelerator="gpu", absent="skip")
def test_no_gpu(harness_check):
    harness_check("int8")


@pytest.mark.harness(accelerator="gup")
def test_misspelt(harness_check):
    harness_check("int8")


@pytest.mark.harness(absent="ignore")
def test_wrong_value(harness_check):
    pass


@pytest.mark.harness(devise="local")
def test_unknown_keyword(harness_check):
    pass


def test_no_such_variant(harness_check):
    harness_check("int4")


@pytest.mark.harness(slice_by="(?P<digit>[0-9]+)_")
def test_slices(harness_check):
    harness_check("int8")


def test_time(harness_check, benchmark):
    benchmark.pedantic(harness_check.inference("int8"), rounds=2)
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest as the user runs it, with the plugin and pytest-benchmark."""
    environment = os.environ | {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONPATH": str(ROOT),
        "VK_ICD_FILENAMES": str(folder / "no-driver.json"),
        "PYTEST_ADDOPTS": "",
    }
    command = [sys.executable, "-m", "pytest", "-p", "harness.pytest_plugin", "-p", "pytest_benchmark.plugin"]
    return subprocess.run([*command, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def repository(
    tiny_model: Path, tiny_variants: Path, few_images: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    settings = {
        "models": tiny_variants,
        "reference": tiny_model,
        "data": few_images,
        "policy": FEW_IMAGES_POLICY,
        "records": "records",
    }
    (folder / "pytest.ini").write_text(
        "[pytest]\n" + "".join(f"harness_{name} = {value}\n" for name, value in settings.items())
    )
    (folder / "strict.toml").write_text("[limits]\nmax_flip_share = 0.0001\n")
    (folder / "undecided.toml").write_text("[limits]\nmax_flip_share = 0.15\n")
    (folder / "test_variants.py").write_text(TESTS)
    return folder


@pytest.fixture(scope="module")
def outcomes(repository: Path) -> dict[str, tuple[str, str]]:
    """Outcome and message of each of the user's tests."""
    done = run(repository, "-q", "--strict-markers", "--junit-xml=junit.xml")
    assert done.returncode == 1, done.stdout + done.stderr
    cases = ElementTree.parse(repository / "junit.xml").iter("testcase")
    return {
        case.get("name", ""): next(
            ((child.tag, f"{child.get('message')}\n{child.text}") for child in case if child.tag != "properties"),
            ("passed", json.dumps({prop.get("name"): prop.get("value") for prop in case.iter("property")})),
        )
        for case in cases
    }


def test_a_variant_that_passes(outcomes: dict[str, tuple[str, str]]) -> None:
    """Its record is an artefact, named in JUnit's XML."""
    outcome, properties = outcomes["test_int8"]
    assert outcome == "passed"
    stored = json.loads(properties)
    assert stored["harness_verdict"] == "PASS"
    assert json.loads(Path(stored["harness_record"]).read_text())["verdict"] == "PASS"
    assert Path(stored["harness_record"]).name == "test-variants.py-test-int8.json"


@pytest.mark.parametrize(
    ("test", "outcome", "message"),
    [
        ("test_undecided", "failure", "INCONCLUSIVE: int8 is neither proven nor refuted by this run (110 images"),
        ("test_flips", "failure", "FAIL: int8 does not answer like the Keras model (110 images"),
        ("test_flips", "failure", " of 110 answers differ from th"),
        ("test_flips", "failure", "\nrecord: "),
        ("test_skipped", "skipped", "adb://no-such-phone: "),
        ("test_absent", "failure", "adb://no-such-phone: "),
        ("test_no_gpu", "skipped", "--accelerator gpu: LiteRT finds no Vulkan driver"),
        ("test_misspelt", "failure", "gup: unknown; did you mean 'gpu'?"),
        ("test_wrong_value", "error", "marker harness: absent='ignore'; expected 'fail' or 'skip'"),
        ("test_unknown_keyword", "error", "marker harness: 'devise'; expected keywords: absent, accelerator"),
        ("test_no_such_variant", "failure", "has no variant 'int4'; it has dynamic_range, float32, int8"),
        ("test_slices", "failure", "11 of 11 slices with too few images for max_slice_drop"),
        ("test_time", "passed", ""),
    ],
)
def test_what_does_not_pass_says_why(
    outcomes: dict[str, tuple[str, str]], test: str, outcome: str, message: str
) -> None:
    """The reasons stand in the failure, without a traceback."""
    assert outcomes[test][0] == outcome
    assert message in outcomes[test][1]
    assert "another exception" not in outcomes[test][1]
    assert "harness/pytest_plugin.py" not in outcomes[test][1]


def test_the_nearest_marker_counts(outcomes: dict[str, tuple[str, str]]) -> None:
    """A path of None in it is the configuration's again."""
    assert outcomes["test_defaults"][0] == "passed"


def test_no_model_is_named(repository: Path) -> None:
    done = run(repository, "-q", "-k", "int8", "-o", "harness_reference=")
    assert "no Keras model is named; set harness_reference" in done.stdout


def test_without_the_plugin_nothing_of_it_is_imported(tmp_path: Path) -> None:
    """Loaded but not used, it imports neither NumPy nor another module of the harness."""
    (tmp_path / "test_other.py").write_text(
        "import sys\n\ndef test_other():\n    assert not {'numpy', 'msgspec', 'harness.check'} & set(sys.modules)\n"
    )
    assert run(tmp_path, "-q").returncode == 0


def test_pytest_finds_it_by_name() -> None:
    """`-p no:harness` leaves it out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"harness": "harness.pytest_plugin"}
