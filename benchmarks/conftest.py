"""What the benchmarks share: whose models they measure, and on which images."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tabulate import tabulate

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from benchmarks.figures import COLUMNS, FIGURES
from converters.convert import Images, convert
from harness.artifacts import manifest, reference
from harness.artifacts.manifest import KINDS, Variant
from harness.core.errors import SetupError
from harness.images import dataset
from harness.images.dataset import Dataset
from harness.output import terminal

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "models" / "resnet164.keras"
VARIANTS = ROOT / "models" / "tflite"
TEST_IMAGES = ROOT / "data" / "test"


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = {}


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """All figures of a model in one table, a row a setting."""
    figures = config.stash[FIGURES]
    if not figures:
        return
    rows = [
        [str(setting.cell), setting.threads, *(row.get(name, float("nan")) * COLUMNS[name][1] for name in COLUMNS)]
        for setting, row in figures.items()
    ]
    headings = ["variant", "threads", *(heading for heading, _, _ in COLUMNS.values())]
    formats = ("", "", *(shown for _, _, shown in COLUMNS.values()))
    terminalreporter.section("variants")
    terminalreporter.write_line(tabulate(rows, headings, floatfmt=formats).replace("nan", "  -"))


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("models", "whose models are benchmarked")
    group.addoption(
        "--models",
        type=Path,
        default=VARIANTS,
        metavar="DIR",
        help="a folder that `harness convert` wrote (default: the shipped model's, converted first if need be)",
    )
    group.addoption(
        "--data", type=Path, default=TEST_IMAGES, metavar="DIR", help="images for these models (default: %(default)s)"
    )


@pytest.hookimpl(tryfirst=True)  # before -m
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Claims against other programs take half an hour: they run only where -m asks for them."""
    claims = [item for item in items if item.path.parent.name == "claims"]
    for item in claims:
        item.add_marker("claims")
    if "claims" not in config.getoption("-m"):
        items[:] = [item for item in items if item not in claims]
        config.hook.pytest_deselected(items=claims)


@pytest.fixture(scope="session")
def variants(request: pytest.FixtureRequest) -> dict[str, Variant]:
    """The variants to measure, by kind."""
    folder = request.config.getoption("--models")
    return shipped_variants() if folder == VARIANTS else manifest.read(folder)


def shipped_variants() -> dict[str, Variant]:
    """The shipped model's, converted first where they are missing or stale."""
    source = reference.model_sha256(MODEL)
    try:
        known = manifest.read(VARIANTS)
        for kind in KINDS:
            manifest.verify(VARIANTS, known[kind], source)
    except (SetupError, KeyError):
        known = convert(MODEL, VARIANTS, Images(ROOT / "data" / "calibration", test=TEST_IMAGES), terminal.step)
    return known


@pytest.fixture(scope="session")
def data(request: pytest.FixtureRequest, variants: dict[str, Variant]) -> Dataset:
    """Images as these models take them."""
    return dataset.load(
        request.config.getoption("--data"), manifest.spec_of(variants, request.config.getoption("--models"))
    )
