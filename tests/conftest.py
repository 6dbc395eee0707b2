"""Small real things that the tests share: a tiny model of the shipped one's shape, its variants, its images."""

from __future__ import annotations

import inspect
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from converters.keras_process import KerasProcess
from harness.artifacts.outputs import FloatArray
from harness.core import cores
from harness.core.cell import Cell
from harness.judge import policy
from harness.judge.policy import Policy
from models.config import DIGITS as DIGITS
from tests import keras_fork, store
from tests.needs import SWIFTSHADER, needs

LAUNCH = KerasProcess.launch

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in ("SSE41", "AVX", "AVX2", "AVX2_VNNI"):
    # A processor without AVX-512 computes bfloat16 by Eigen. Under this limit TensorFlow, which asks the processor,
    # would give it to oneDNN, which refuses.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "models" / "resnet164.keras"
TEST_IMAGES = ROOT / "data" / "test"
CALIBRATION = ROOT / "data" / "calibration"
FEW_IMAGES_POLICY = ROOT / "tests" / "few_images.toml"
# Of a probability, from Keras to float32 files on any processor: what the product allows a float32 variant.
FLOAT32_DIFFERENCE = policy.load().limits(Cell("float32")).max_probability_difference
ALONE = ("devices", "cluster")  # folders whose tests share what they start


@pytest.hookimpl(tryfirst=True)
def pytest_xdist_auto_num_workers() -> int:
    """Of `-n auto`: one process more than cores, as tests of devices and labs wait a good part of their time."""
    return cores.usable() + 1


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of several processes one runs all tests that share virtual devices, a lab, or a fixture of their module.

    Long ones come first: those of the whole product, which lie in tests itself.
    """
    items.sort(key=lambda item: item.path.parent != ROOT / "tests")
    for item in items:
        if (room := item.path.parent.name) in ALONE:
            item.add_marker(pytest.mark.xdist_group(room))
        elif _shares_with_its_module(item) and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def _shares_with_its_module(item: pytest.Item) -> bool:
    """Whether a test uses a fixture that is made once for its module, and would be made anew in another process."""
    fixtures = getattr(item, "_fixtureinfo", None)
    return fixtures is not None and any(known[-1].scope == "module" for known in fixtures.name2fixturedefs.values())


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse to run where several processes would share devices: tests that stop workers would stop each other's."""
    alone = [item for item in session.items if item.path.parent.name in ALONE]
    if hasattr(session.config, "workerinput") and not all("@" in item.nodeid for item in alone):
        raise pytest.UsageError("pytest-xdist does not group the tests; run pytest -n auto --dist loadgroup")


@pytest.fixture(scope="session", autouse=True)
def forked_keras() -> Iterator[None]:
    """Keras processes are forked from one that has TensorFlow loaded, started when the first is asked for."""
    with ExitStack() as stack:
        where: list[str] = []

        def fork(arguments: list[str], log: IO[bytes], env: dict[str, str]) -> keras_fork.Forked:
            if not where:
                where.append(stack.enter_context(keras_fork.server()))
            return keras_fork.Forked(where[0], arguments, log, env)

        KerasProcess.launch = staticmethod(fork)  # type: ignore[method-assign]
        yield
        KerasProcess.launch = staticmethod(LAUNCH)  # type: ignore[method-assign]


@pytest.fixture
def real_keras_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras processes are started as users start them."""
    monkeypatch.setattr(KerasProcess, "launch", staticmethod(LAUNCH))


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """As on a full disk, writing beyond fails, for this process."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def quiet_step(name: str) -> Iterator[None]:
    yield


def save_model(path: Path, *, depth: int = 20, classes: int = 11, shift: int = 0) -> Path:
    """A small ResNet that reads about half of the digits: blocks of the shipped one, its last layer fitted here.

    shift: it reads each digit as the one so many further, so that another model's answers are others.
    """
    import keras

    from harness.images import dataset
    from models.resnet import build_resnet

    data = dataset.load(CALIBRATION, DIGITS)
    data = dataset.take(data, np.flatnonzero(data.labels < classes))
    shipped, model = keras.saving.load_model(SHIPPED), build_resnet(depth, classes=classes)
    for layer in model.layers[:-1]:
        layer.set_weights(shipped.get_layer(layer.name).get_weights())
        layer.momentum = 0.0  # of a batch norm: one pass gives it its statistics
    model(data.inputs(), training=True)
    features = keras.Model(model.input, model.layers[-2].output).predict(data.inputs(), verbose=0)
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-6
    seen = (features - mean) / deviation
    wanted = 16 * np.eye(classes)[(data.labels + shift) % classes]
    wanted -= wanted.mean()
    kernel = np.linalg.solve(seen.T @ seen + 100 * np.eye(seen.shape[1]), seen.T @ wanted) / deviation[:, None]
    model.layers[-1].set_weights([kernel, -mean @ kernel])
    model.save(path)
    return path


def stored_model(name: str, **settings: Any) -> Path:
    """The .keras file that save_model makes, from the store. Read-only."""
    parts = (*store.MODEL_SOURCES, SHIPPED, CALIBRATION, inspect.getsource(save_model), repr(sorted(settings.items())))
    folder = store.obtain(name, parts, lambda out: save_model(out / f"{name}.keras", **settings))
    return folder / f"{name}.keras"


def stored_variants(model: Path, *options: str) -> Path:
    """What `harness convert` makes of a model and the committed images, from the store. Read-only."""
    from harness.cli import main

    command = ["convert", str(model), "--calibration", str(CALIBRATION), "--data", str(TEST_IMAGES), *options]

    def make(out: Path) -> None:
        assert main([*command, "--out", str(out)]) == 0

    return store.obtain(
        f"{model.stem}-variants", (*store.CONVERTER_SOURCES, model, CALIBRATION, TEST_IMAGES, repr(options)), make
    )


def stored_reference(model: Path, images: Path) -> Path:
    """A folder with the model's reference outputs on images, from the store. Read-only."""
    from harness.check import references
    from harness.images import dataset

    def make(out: Path) -> None:
        references.obtain(model, dataset.load(images, DIGITS), out, quiet_step)

    return store.obtain(f"{model.stem}-reference", (*store.CONVERTER_SOURCES, model, images), make)


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """A ResNet-20 .keras file, 28x28x1 to 11 classes. Read-only."""
    return stored_model("tiny")


@pytest.fixture(scope="session")
def tiny_variants(tiny_model: Path, few_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its three variants, manifest and reference outputs on `few_images`; tests may add references."""
    out = tmp_path_factory.mktemp("variants") / "tiny"
    shutil.copytree(stored_variants(tiny_model), out)
    return Path(shutil.copytree(stored_reference(tiny_model, few_images), out, dirs_exist_ok=True))


@pytest.fixture(scope="session")
def shipped_variants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model's three variants, as the defaults convert it; tests may add references."""
    return Path(shutil.copytree(stored_variants(SHIPPED), tmp_path_factory.mktemp("shipped") / "variants"))


@pytest.fixture(scope="session")
def few_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 110 of the committed test images, 10 of each class."""
    folder = tmp_path_factory.mktemp("images")
    for label in range(11):
        for number in range(1, 11):
            name = f"{label}_{number}.jpg"
            (folder / name).write_bytes((TEST_IMAGES / name).read_bytes())
    return folder


def refusal(capsys: pytest.CaptureFixture[str], code: int) -> str:
    """The one line of a refusal, its exit code checked."""
    error = capsys.readouterr().err
    assert code == 2
    assert error.count("\n") == 1
    assert "Traceback" not in error
    return error


def assert_alike(cell: Cell, ours: FloatArray, theirs: FloatArray, limits: Policy) -> None:
    """Two runtimes' or processors' outputs of one file: apart by rounding, no more than limits allow a variant.

    ours, theirs: probabilities [N, classes].
    """
    bounds, moved = limits.limits(cell), np.abs(theirs - ours).max(axis=1)
    assert (moved > bounds.max_probability_difference).mean() <= bounds.max_far_share, cell
    assert moved.mean() <= bounds.max_mean_probability_difference, cell


@pytest.fixture
def swiftshader(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU in software for LiteRT: the Vulkan driver of Debian's chromium package."""
    needs("accelerators")
    monkeypatch.setenv("VK_ICD_FILENAMES", str(SWIFTSHADER[0]))


@pytest.fixture
def openvino() -> None:
    """An NPU's compiler for LiteRT that computes on the processor."""
    needs("npu")
