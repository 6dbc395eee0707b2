"""A check in one file: variants, images, the reference's outputs and the limits, for a machine without TensorFlow.

The file runs itself: see pack_main.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.artifacts import manifest
from harness.artifacts.reference import Reference
from harness.check import pack_main, wheel
from harness.check.pipeline import Subject
from harness.core import shapes
from harness.core.errors import SetupError
from harness.core.files import write_atomic
from harness.images import dataset
from harness.judge.policy import Policy

SCHEMA = "harness-pack/1"
ABOUT, ARRAYS = "pack.json", "arrays.npz"


def write(subject: Subject, limits: Policy, path: Path) -> None:
    """Raises SetupError where it cannot be written."""
    data, expected = subject.data, subject.expected
    arrays: dict[str, npt.NDArray[Any]] = {
        "images": data.images,
        "labels": data.labels,
        "names": np.array(data.names),
        "reference": expected.outputs,
    }
    if expected.folded is not None:
        arrays["folded"] = expected.folded
    about = {
        "schema": SCHEMA,
        "model": {"file": subject.reference_model, "sha256": expected.model_sha256},
        "data": {"folder": subject.data_folder, "sha256": data.sha256, "skipped": list(data.skipped)},
        "policy": shapes.to_builtins(limits),
    }
    packed, content = io.BytesIO(), io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **arrays)
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(ABOUT, json.dumps(about, indent=1))
        archive.writestr(ARRAYS, packed.getvalue())
        archive.writestr(manifest.FILE, manifest.encode(dict(subject.variants)))
        for variant in subject.variants.values():
            archive.writestr(variant.file, variant.path(subject.models).read_bytes())
        archive.writestr("__main__.py", Path(pack_main.__file__).read_text())
        archive.writestr(*wheel.build())
    write_atomic(path, content.getvalue())


def read(path: Path, folder: Path) -> tuple[Subject, Policy]:
    """What was packed; its variants are unpacked into the folder. Raises SetupError: no such file, or a damaged one."""
    try:
        with zipfile.ZipFile(path) as archive:
            about = json.loads(archive.read(ABOUT))
            if about["schema"] != SCHEMA:
                raise SetupError(
                    f"{path}: schema {about['schema']!r}, expected {SCHEMA!r}; run harness device pack again"
                )
            (folder / manifest.FILE).write_bytes(archive.read(manifest.FILE))
            variants = manifest.read(folder)
            for variant in variants.values():
                variant.path(folder).write_bytes(archive.read(variant.file))
            with np.load(io.BytesIO(archive.read(ARRAYS)), allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        return _subject(about, arrays, variants, folder, path), shapes.convert(about["policy"], Policy, str(path))
    except OSError as error:
        raise SetupError(f"{path}: expected what harness device pack wrote ({error.strerror or error})") from error
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, EOFError) as error:
        raise SetupError(f"{path}: damaged, or not what harness device pack wrote ({error}); pack again") from error


def _subject(
    about: Mapping[str, Any], arrays: Mapping[str, Any], variants: dict[str, manifest.Variant], folder: Path, path: Path
) -> Subject:
    data = dataset.build(
        arrays["images"],
        arrays["labels"].tolist(),
        [str(name) for name in arrays["names"]],
        manifest.spec_of(variants, folder),
        skipped=about["data"]["skipped"],
    )
    if data.sha256 != about["data"]["sha256"]:
        raise SetupError(f"{path}: its images are not those it was packed with; pack again")
    model_sha256 = about["model"]["sha256"]
    for variant in variants.values():
        manifest.verify(folder, variant, model_sha256)
    expected = Reference(arrays["reference"], model_sha256, data.sha256, data.spec, arrays.get("folded"))
    return Subject(variants, folder, data, expected, about["model"]["file"], about["data"]["folder"])
