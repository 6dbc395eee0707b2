"""manifest.json beside the .tflite files describes each variant. It is read without TensorFlow.

A variant's kind names its file, its entry and its row in every table: `ARITHMETIC[_mixed][_float_io]`, where ARITHMETIC
is float32, float16 (weights; it computes in float32), dynamic_range (int8 weights, activations are quantized at run
time), int8, or int16x8 (activations x weights). _mixed keeps the layers that quantization hurts most in float32;
_float_io has float32 inputs and outputs; _recovered was made otherwise than int8, or trained, so that less changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from harness.core import shapes
from harness.core.errors import SetupError
from harness.core.files import sha256
from harness.core.outcome import Outcome
from harness.core.shapes import Count, FileName, Shape
from harness.images.spec import ModelSpec

SCHEMA = "harness-manifest/3"
FILE = "manifest.json"
MAX_VARIANTS = 1000
KINDS = ("float32", "dynamic_range", "int8")  # converted unless others are asked for
MIXED = "int8_mixed_float_io"
RECOVERED = "int8_recovered"
KNOWN_KINDS = (*KINDS, "float16", "int8_float_io", "int16x8", "int16x8_float_io", MIXED, RECOVERED)
Kind = Annotated[
    str, Meta(pattern=f"^({'|'.join(KNOWN_KINDS)})$(?!\n)", description=f"one of {', '.join(KNOWN_KINDS)}")
]
CALIBRATED = tuple(kind for kind in KNOWN_KINDS if kind.startswith("int"))


class Quantization(Shape):
    """real = (stored - zero_point) * scale; the scale is 0.0 if the tensor is float."""

    dtype: str
    scale: float
    zero_point: int


class Loaded(Shape):
    """A runtime that was given the file: for `same_top1` of `images` inputs it predicts what the first runtime does."""

    runtime: str  # name and version
    images: int
    same_top1: int
    problem: str | None  # why the file did not run


class Mixed(Shape):
    """Which layers of a mixed variant stay in float32, and how they were chosen."""

    float_layers: tuple[str, ...]  # by the tensors that they output
    layers: int
    max_flips: int
    flips: int  # against float32, on the images below
    flips_all_int8: int
    images: int
    images_sha256: str


class Attempt(Shape):
    """An int8 file on images of the training side that nothing was made from. flips: against the Keras model."""

    recipe: str
    outcome: Outcome | None  # of the policy; None if the file could not be made
    flips: int
    accuracy: float | None  # None without labels
    seconds: float
    problem: str | None


class Training(Shape):
    """How a recovered variant was trained. Losses are means over images held out, in nats; the best state is kept."""

    learned_from: str  # reference: the Keras model's probabilities; or labels
    images: int
    images_sha256: str
    steps: int  # that were taken
    batch_size: int
    best_step: int
    loss_before: float
    loss: float
    stopped: str | None  # why before the last step


class Recovery(Shape):
    """What was tried to make an int8 file change less, in order. recipe: that of the variant."""

    recipe: str
    attempts: tuple[Attempt, ...]
    images: int  # held out of the training side, on which flips were counted
    images_sha256: str
    training: Training | None

    @property
    def outcome(self) -> Outcome:
        """The policy's, of the file that was taken."""
        return next(attempt.outcome for attempt in self.attempts if attempt.recipe == self.recipe and attempt.outcome)


class Variant(Shape):
    """One .tflite file, named <kind>.tflite, and where it comes from."""

    kind: Kind
    file: FileName
    sha256: str
    size_bytes: Count
    source_sha256: str  # of the .keras file
    spec: ModelSpec
    batch_norms_folded: int
    batch_norms_kept: Mapping[str, str]  # layer -> why it could not be folded exactly
    notes: tuple[str, ...]  # what a person should know about the conversion
    calibration_sha256: str | None  # None if no calibration set was used
    calibration_size: int | None
    calibration_warnings: tuple[str, ...]
    mixed: Mixed | None
    input: Quantization
    output: Quantization  # of several outputs the first
    op_versions: Mapping[str, int]
    oldest_runtime: str | None  # the first TensorFlow Lite version that has these op versions
    runtimes: tuple[Loaded, ...]  # that were tried when it was converted; the first is the converter's own
    recovery: Recovery | None = None

    def path(self, folder: Path) -> Path:
        return folder / self.file


class Manifest(Shape, tag_field="schema", tag=SCHEMA):
    variants: Annotated[tuple[Variant, ...], Meta(max_length=MAX_VARIANTS)]

    def __post_init__(self) -> None:
        kinds = [variant.kind for variant in self.variants]
        if repeated := sorted({kind for kind in kinds if kinds.count(kind) > 1}):
            raise ValueError(f"{repeated[0]} is in it twice")


def read(folder: Path) -> dict[str, Variant]:
    """The variants of a folder by kind. Raises SetupError: no manifest, a damaged one, another schema."""
    path = folder / FILE
    if not path.is_file():
        raise SetupError(
            f"{path}: expected a manifest; make the variants: tox -e convert, or harness convert MODEL --out {folder}"
        )
    return _by_kind(shapes.read_json(path, Manifest, "a manifest", "convert again"))


def decode(content: bytes, path: str) -> dict[str, Variant]:
    """The variants of a manifest's content, which an error calls `path`. Raises SetupError as `read` does."""
    return _by_kind(shapes.decode(content, Manifest, path))


def _by_kind(manifest: Manifest) -> dict[str, Variant]:
    return {variant.kind: variant for variant in manifest.variants}


def find(variants: Mapping[str, Variant], kind: str, folder: Path) -> Variant:
    """A variant by its name. Raises SetupError."""
    if kind not in variants:
        raise SetupError(f"{folder}: has no variant {kind!r}; it has {', '.join(variants) or 'none'}")
    return variants[kind]


def encode(variants: Mapping[str, Variant]) -> bytes:
    """A manifest's content."""
    return shapes.encode(Manifest(tuple(variants[kind] for kind in sorted(variants))))


def spec_of(variants: Mapping[str, Variant], folder: Path) -> ModelSpec:
    """The model spec that all of them share. Raises SetupError if there are none, or if their specs differ."""
    specs: dict[ModelSpec, str] = {}
    for kind, variant in variants.items():
        specs.setdefault(variant.spec, kind)
    if not specs:
        raise SetupError(f"{folder}: its manifest names no variants; convert again")
    if len(specs) > 1:
        first, second = list(specs.values())[:2]
        raise SetupError(
            f"{folder}: {first} and {second} were converted for other class names, sizes or pixels; convert all again"
        )
    return next(iter(specs))


def contents(folder: Path, variants: Mapping[str, Variant]) -> dict[str, bytes]:
    """The content of each variant's file."""
    return {kind: variant.path(folder).read_bytes() for kind, variant in variants.items()}


def verify(folder: Path, variant: Variant, source_sha256: str) -> bytes:
    """The variant's file. Raises SetupError unless it is the one described and was made from the given model."""
    path = variant.path(folder)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SetupError(f"{path}: in the manifest, but it cannot be read ({error.strerror}); convert again") from error
    check(variant, content, source_sha256, path)
    return content


def check(variant: Variant, content: bytes, source_sha256: str, path: Path | str) -> None:
    """Raise SetupError unless a variant's file, which an error calls `path`, is the one described; see `verify`."""
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
