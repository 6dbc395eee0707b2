"""What is known of each variant: manifest.json beside the .tflite files. Reads without TensorFlow."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.errors import SetupError
from harness.files import sha256, write_atomic

SCHEMA = "harness-manifest/1"
FILE = "manifest.json"
KINDS = ("float32", "dynamic_range", "int8")


@dataclass(frozen=True)
class Quantization:
    """real = (stored - zero_point) * scale; scale 0.0 where the tensor is float."""

    dtype: str
    scale: float
    zero_point: int


@dataclass(frozen=True)
class Variant:
    """One .tflite file, named <kind>.tflite, and where it comes from."""

    kind: str
    file: str
    sha256: str
    size_bytes: int
    source_sha256: str  # of the .keras file
    batch_norms_folded: int
    batch_norms_kept: dict[str, str]  # layer -> why it could not be folded exactly
    calibration_sha256: str | None  # of the calibration set, where one was used
    calibration_size: int | None
    input: Quantization
    output: Quantization
    op_versions: dict[str, int]
    min_runtime_version: str | None  # as the converter wrote it into the file; it does not know later edits
    loaded_in: str  # the runtime that loaded and ran it when it was made

    def path(self, folder: Path) -> Path:
        return folder / self.file


def read(folder: Path) -> dict[str, Variant]:
    """The variants of a folder by kind. Raises SetupError: no manifest, a damaged one, another schema."""
    path = folder / FILE
    try:
        stored = json.loads(path.read_text())
    except OSError as error:
        raise SetupError(
            f"{path}: expected a manifest ({error.strerror}); make the variants: "
            f"tox -e convert, or harness convert MODEL --out {folder}"
        ) from error
    except ValueError as error:
        raise SetupError(f"{path}: not valid JSON ({error}); convert again") from error
    if not isinstance(stored, dict) or stored.get("schema") != SCHEMA:
        schema = stored.get("schema") if isinstance(stored, dict) else None
        raise SetupError(f"{path}: schema {schema!r}, expected {SCHEMA!r}; convert again")
    try:
        return {entry["kind"]: _variant(entry) for entry in stored["variants"]}
    except (KeyError, TypeError) as error:
        raise SetupError(f"{path}: an entry is damaged ({error}); convert again") from error


def write(folder: Path, variants: dict[str, Variant]) -> None:
    """Replace a folder's manifest."""
    content = {"schema": SCHEMA, "variants": [asdict(variants[kind]) for kind in sorted(variants)]}
    write_atomic(folder / FILE, (json.dumps(content, indent=2) + "\n").encode())


def verify(folder: Path, variant: Variant, source_sha256: str) -> None:
    """Raise SetupError unless the variant's file is the one described and was made from the given model."""
    path = variant.path(folder)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SetupError(f"{path}: in the manifest, but it cannot be read ({error.strerror}); convert again") from error
    if sha256(content) != variant.sha256:
        raise SetupError(
            f"{path}: {len(content)} bytes with SHA-256 {sha256(content)[:12]}, the manifest says {variant.size_bytes} "
            f"with {variant.sha256[:12]}: truncated or changed; convert again"
        )
    if variant.source_sha256 != source_sha256:
        raise SetupError(
            f"{path}: stale, made from model {variant.source_sha256[:12]}, the reference is {source_sha256[:12]}; "
            "convert again, or name its model with --reference"
        )


def _variant(entry: dict[str, Any]) -> Variant:
    parts = dict(entry)
    parts["input"], parts["output"] = Quantization(**entry["input"]), Quantization(**entry["output"])
    return Variant(**parts)
