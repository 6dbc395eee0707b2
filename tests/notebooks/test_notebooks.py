"""The notebooks run top to bottom on a small subset, and are committed without outputs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MODELS = ("tiny.keras", "dynamic_range.tflite", "float32.tflite", "int8.tflite")


@pytest.fixture(scope="session")
def models(tiny_model: Path, tiny_variants: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a Keras model and its variants, and one file that is no model."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(tiny_variants, folder / "tflite")
    shutil.copy(tiny_model, folder)
    (folder / "broken.tflite").write_bytes(b"")
    return folder


def run(name: str, models: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[Any]]:
    """A notebook's text and its pictures, after running it as from its own folder."""
    store = models if models.is_dir() else models.parent
    for key, value in (("MODELS", models), ("DATA", data), ("STORE", store)):
        monkeypatch.setenv(f"HARNESS_{key}", str(value))
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(ROOT / "notebooks")}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    shown = [output.get("data", {}) for output in outputs]
    text = "\n".join([output.get("text", "") for output in outputs] + [d.get("text/markdown", "") for d in shown])
    return text, [data["image/png"] for data in shown if "image/png" in data]


def test_predict_shows_images_of_every_model(models: Path, few_images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One gallery for Keras and one for each variant; a broken file is named and does not stop it."""
    text, pictures = run("predict", models, few_images, monkeypatch)
    assert len(pictures) == len(MODELS)
    assert all(f"{model}: " in text for model in MODELS)
    assert "broken.tflite: not a TFLite file" in text


def test_predict_shows_a_single_variant(models: Path, few_images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file instead of a folder."""
    text, pictures = run("predict", models / "tflite" / "int8.tflite", few_images, monkeypatch)
    assert len(pictures) == 1
    assert "int8.tflite: " in text


def test_experiments_shows_figures_of_every_model(
    models: Path, few_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comparison, and for each model its table, its classes, its confusion matrix and its misses."""
    text, pictures = run("experiments", models, few_images, monkeypatch)
    assert len(pictures) == 1 + 3 * len(MODELS)
    assert text.count("precision") == len(MODELS)
    assert all(f"{model}: " in text for model in MODELS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_committed_without_outputs(path: Path) -> None:
    """No output, no execution count, nothing of the machine that ran it."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}


def test_both_notebooks_are_there() -> None:
    """The test above looked at something."""
    assert [path.stem for path in NOTEBOOKS] == ["experiments", "predict"]
