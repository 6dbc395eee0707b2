"""Tensors for models that take no pictures: from .npz and Parquet, and every way these can be wrong."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from harness.core.errors import SetupError
from harness.images import dataset, shards, slices, spec
from harness.images.spec import UNLABELLED, Input, ModelConfig, ModelSignature, ModelSpec, only_classes

SOUND = ModelSpec((0, 0), 0, ("low", "high"), input=Input("wave", (6, 2)))
WAVES = np.random.default_rng(0).normal(0, 1, (5, 6, 2)).astype(np.float32)
LABELS = np.array([0, 1, 1, 0, 1])


def written(folder: Path, **arrays: Any) -> Path:
    path = folder / "set.npz"
    np.savez(path, **arrays)
    return path


def test_an_npz_is_a_set(tmp_path: Path) -> None:
    """By the usual names or the input's; labels as numbers, names or none; any type of number; the same in shards."""
    for arrays in (
        {"inputs": WAVES, "labels": LABELS},
        {"wave": WAVES.astype(np.float64), "label": LABELS.astype(np.uint8)[:, np.newaxis]},
        {"input": np.asfortranarray(WAVES), "labels": np.array(SOUND.class_names)[LABELS]},
        {"inputs": WAVES.reshape(5, 12).astype(">f4"), "labels": LABELS},
    ):
        data = dataset.load(written(tmp_path, **arrays), SOUND)
        assert data.images.dtype == np.float32
        np.testing.assert_array_equal(data.inputs(), WAVES)
        assert data.labels.tolist() == LABELS.tolist()
        assert data.names == tuple(f"set/{n}" for n in range(5))
        np.testing.assert_allclose(data.input_means(), WAVES.mean(axis=(1, 2)), rtol=1e-5)
    parts = list(dataset.in_shards(shards.open_source(tmp_path / "set.npz", SOUND), 2, SOUND))
    assert [len(part) for part in parts] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate([part.images for part in parts]), WAVES)
    path = written(tmp_path, inputs=WAVES, names=np.array(list("abcde")), site=np.array([1, 1, 2, 2, 2]))
    source = shards.open_source(path, SOUND)
    assert [(name, label) for name, label, _ in source.entries()] == [(name, UNLABELLED) for name in "abcde"]
    assert slices.divide(source, "site").of_image == dict(zip("abcde", "11222", strict=True))
    with pytest.raises(SetupError, match="unknown column 'sites'; did you mean 'site'"):
        slices.divide(source, "sites")


def test_parquet_of_lists_is_a_set(tmp_path: Path) -> None:
    """Nested or flat; the hash is the same."""
    hashes = set()
    for lists in (WAVES.tolist(), WAVES.reshape(5, -1).tolist()):
        table = pyarrow.table({"inputs": lists, "label": LABELS, "name": list("abcde"), "site": [*"xxyy", None]})
        parquet.write_table(table, tmp_path / "set.parquet")
        data = dataset.load(tmp_path / "set.parquet", SOUND)
        hashes.add(data.sha256)
    np.testing.assert_array_equal(data.images, WAVES)
    assert len(hashes) == 1
    assert slices.divide(shards.open_source(tmp_path / "set.parquet", SOUND), "site").of_image["e"] == slices.REST
    table = pyarrow.table({"inputs": [[1.0], [1.0, 2.0]], "label": [0, 1]})
    parquet.write_table(table, tmp_path / "set.parquet")
    with pytest.raises(SetupError, match="inputs: expected lists of one length"):
        dataset.load(tmp_path / "set.parquet", SOUND)


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"x": WAVES}, "has x; expected inputs, or wave, of [N, 6, 2]"),
        ({"inputs": WAVES[..., 0]}, "inputs is [5, 6]; the model takes [N, 6, 2]"),
        ({"inputs": WAVES[0]}, "inputs is [6, 2]; the model takes [N, 6, 2]"),
        ({"inputs": np.float32(1)}, "inputs is []; the model takes [N, 6, 2]"),
        ({"inputs": WAVES[:0]}, "no examples"),
        ({"inputs": WAVES, "labels": LABELS[:4]}, "labels is [4], inputs has 5 examples"),
        ({"inputs": WAVES, "labels": LABELS + 1}, "labels says class 2; the classes are low, high"),
        ({"inputs": WAVES, "labels": LABELS - 1}, "labels says class -1"),
        ({"inputs": WAVES, "labels": np.array(["low"] * 4 + ["hihg"])}, "did you mean high?"),
        ({"inputs": WAVES, "labels": LABELS * 1.0}, "labels is float64 [5]; expected [5], classes' numbers or names"),
        ({"inputs": WAVES, "labels": np.eye(5)}, "labels is float64 [5, 5]"),
        ({"inputs": np.where(np.arange(6)[:, None] == 3, np.nan, WAVES)}, "NaN or infinity in 5 examples"),
        ({"inputs": WAVES * np.float64(1e300)}, "NaN or infinity in 5 examples"),
        ({"inputs": WAVES * 1j}, "inputs is complex"),
        ({"inputs": np.full((5, 6, 2), "a")}, "inputs is <U1"),
        ({"inputs": WAVES, "names": np.array(["a"] * 5)}, "names has the same name twice"),
        ({"inputs": np.array([WAVES, None], object)}, "Python objects"),
        ({}, "has nothing; expected inputs"),
    ],
    ids=range(18),
)
def test_sets_that_cannot_be_used_are_refused(arrays: dict[str, Any], reason: str, tmp_path: Path) -> None:
    """In one line, and nothing in them is executed."""
    with pytest.raises(SetupError) as refused:
        dataset.load(written(tmp_path, **arrays), SOUND)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


def test_files_that_are_no_such_set_are_refused(tmp_path: Path) -> None:
    """Cut short, no archive, a bomb, missing, a folder, of another kind; and tensors for a model of images."""
    path = written(tmp_path, inputs=WAVES, labels=LABELS)
    content = path.read_bytes()
    for spoilt in (content[: len(content) // 2], b"", b"PK", content[:200] + b"\0" * 50 + content[250:]):
        path.write_bytes(spoilt)
        with pytest.raises(SetupError, match=r"set\.npz: damaged, or no arrays|NaN or infinity"):
            dataset.load(path, SOUND)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (2**30, 6, 2)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inputs.npy", header.getvalue())
    with pytest.raises(SetupError, match="damaged, or no arrays"):
        dataset.load(path, SOUND)
    for other, reason in (("no.npz", "No such file"), ("", "expected a .npz or .parquet file"), ("a.wav", "expected")):
        with pytest.raises(SetupError, match=reason):
            dataset.load(tmp_path / other, SOUND)
    with pytest.raises(SetupError, match=r'put input = "tensor" into the model'):
        dataset.load(written(tmp_path, inputs=WAVES), ModelSpec((6, 2), 1, ("low", "high")))


def test_what_the_input_stands_for() -> None:
    """Images where the shape may be theirs, unless the config or the file of tensors says otherwise."""

    def combined(config: ModelConfig, channels: int = 1, *, tensors: bool = False) -> ModelSpec:
        signature = ModelSignature((6, 2), channels, (only_classes(2),), input=Input("wave", (6, 2)))
        return spec.combine(signature, spec.LoadedConfig(config, "m.toml"), Path("m.keras"), tensors=tensors)

    assert combined(ModelConfig()).input is None
    assert combined(ModelConfig(), tensors=True).shape == (6, 2)
    takes = combined(ModelConfig(input="tensor"))
    assert takes.input == Input("wave", (6, 2))
    assert takes == combined(ModelConfig(), 0)
    assert str(takes) == "wave [6, 2]; 0-1"
    assert takes.signature.fits(takes)
    assert combined(ModelConfig(input="images"), tensors=True).input is None
    for config, channels, reason in (
        (ModelConfig(input="images"), 0, "input = 'images', the model takes wave"),
        (ModelConfig(input="tensor", mean=(1.0,)), 1, "mean is for images"),
    ):
        with pytest.raises(SetupError, match=reason):
            combined(config, channels)
