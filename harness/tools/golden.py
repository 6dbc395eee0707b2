"""A golden bundle: images with the input tensors and outputs that an app must reproduce, and tests that read it.

golden.json, images/, inputs/*.bin, outputs/*.bin (raw little-endian numbers), the model, README.md and ready tests.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from msgspec import Meta
from PIL import Image

from harness.artifacts import outputs as stored
from harness.artifacts.manifest import Kind, Quantization, Variant
from harness.artifacts.reference import Reference
from harness.core import shapes
from harness.core.errors import SetupError
from harness.core.files import check_writable, read_capped, sha256, slug, write_atomic_together
from harness.core.shapes import Count, FileName, Shape
from harness.images.spec import ModelSpec
from harness.run import execute, job
from harness.tools.golden_images import ChosenImage

FILE = "golden.json"
TEMPLATES = Path(__file__).with_name("golden_templates")
MAX_IMAGES = 10_000
MAX_FILE_BYTES = 2**30  # the model, or one tensor
PIXEL_LEVELS = 2.5  # of 255: what another JPEG decoder or rounding moves a pixel by
EXPECTED = "a golden bundle, as harness golden writes it"

BundlePath = Annotated[
    str,
    Meta(
        pattern=r"^(images|inputs|outputs)/[A-Za-z0-9_@+-][A-Za-z0-9_.@+-]{0,199}$(?!\n)",
        description="a plain name in images/, inputs/ or outputs/",
    ),
]
Array = npt.NDArray[Any]


class TensorInfo(Shape):
    """How a .bin file is read: real = (stored - zero_point) * scale; the scale is 0.0 if the numbers are real."""

    dtype: Literal["float32", "int8", "uint8", "int16"]
    shape: Annotated[tuple[Annotated[int, Meta(ge=1, le=100_000)], ...], Meta(min_length=1, max_length=8)]
    scale: float
    zero_point: int

    @property
    def little_endian(self) -> np.dtype[Any]:
        return np.dtype(self.dtype).newbyteorder("<")

    def real(self, values: Array) -> stored.FloatArray:
        """Real numbers of stored ones."""
        return stored.dequantize(values, self.scale, self.zero_point)


class GoldenImage(Shape):
    """One image; files below the bundle's folder. kind: why it is there. reference: the Keras model's probabilities."""

    name: str
    image: BundlePath
    input: BundlePath
    output: BundlePath
    label: Count
    kind: str
    reference: tuple[float, ...]


class Golden(Shape, tag_field="schema", tag="harness-golden/1"):
    """golden.json. bundle: names this bundle in an app's dump. input_tolerance: of a real input value, what another
    decoder's rounding moves it by. tolerance: of a probability, what the policy allows this variant."""

    bundle: str
    variant: Kind
    model: FileName
    model_sha256: str
    source_sha256: str
    spec: ModelSpec
    input: TensorInfo
    output: TensorInfo
    input_tolerance: float
    tolerance: float
    images: Annotated[tuple[GoldenImage, ...], Meta(min_length=1, max_length=MAX_IMAGES)]

    def __post_init__(self) -> None:
        if len({image.name for image in self.images}) < len(self.images):
            raise ValueError("two images of one name")
        classes = len(self.spec.class_names)
        if any(len(image.reference) != classes or image.label >= classes for image in self.images):
            raise ValueError(f"an image whose label or reference does not fit {classes} classes")


def write(
    out: Path,
    variant: Variant,
    model: bytes,
    chosen: Sequence[ChosenImage],
    reference: Reference,
    tolerance: float,
) -> Golden:
    """Run the model on the chosen images and write the bundle. reference: of the same images, in their order.

    Raises SetupError: the model does not run, or the folder cannot be written.
    """
    check_writable(out)
    real = variant.spec.to_input(np.stack([image.pixels for image in chosen]))
    takes = variant.input
    inputs = stored.quantize(real, np.dtype(takes.dtype).type, takes.scale, takes.zero_point)[:, np.newaxis]
    answers = run(model, inputs, variant.file)
    numbers, classes = answers[0].size, len(variant.spec.class_names)
    if variant.spec.outputs or numbers not in (classes, classes - 1 if classes == 2 else classes):
        raise SetupError(
            f"{variant.file}: gives {numbers} numbers for {classes} classes; a golden bundle needs a single output, of "
            "a number for each class, or of one for two classes"
        )
    files: dict[Path, bytes] = {}
    images = []
    for number, image in enumerate(chosen):
        stem = f"{number:03}-{slug(str(PurePosixPath(image.name).with_suffix('')))[-80:]}"
        expected = tuple(round(float(value), 7) for value in reference.outputs[number])
        names = f"images/{stem}{_suffix(image.name)}", f"inputs/{stem}.bin", f"outputs/{stem}.bin"
        entry = GoldenImage(image.name, *names, image.label, image.kind, expected)
        files[out / entry.image] = image.content
        files[out / entry.input] = _little_endian(inputs[number])
        files[out / entry.output] = _little_endian(answers[number])
        images.append(entry)
    low, high = variant.spec.input_range
    golden = Golden(
        bundle=sha256(repr((variant.sha256, [image.name for image in images])).encode() + inputs.tobytes())[:16],
        variant=variant.kind,
        model=variant.file,
        model_sha256=variant.sha256,
        source_sha256=variant.source_sha256,
        spec=variant.spec,
        input=_info(takes, inputs),
        output=_info(variant.output, answers),
        input_tolerance=max(PIXEL_LEVELS / 255 * (high - low), takes.scale),
        tolerance=tolerance,
        images=tuple(images),
    )
    files[out / variant.file] = model
    for template in sorted(TEMPLATES.iterdir()):
        text = template.read_text()
        files[out / template.name] = (_filled(text, golden) if template.suffix == ".md" else text).encode()
    files[out / FILE] = shapes.encode(golden)  # last: a bundle with an index is complete
    before = _files_of_bundle(out)
    write_atomic_together(files)
    for path in before - files.keys():
        path.unlink(missing_ok=True)
    return golden


def _files_of_bundle(folder: Path) -> set[Path]:
    """What the index of an earlier bundle in the folder names; empty if there is none that can be read."""
    try:
        golden = shapes.read_json(folder / FILE, Golden, EXPECTED)
    except SetupError:
        return set()
    files = (file for image in golden.images for file in (image.image, image.input, image.output))
    return {folder / golden.model, *(folder / file for file in files)}


def run(model: bytes, inputs: Array, where: str) -> Array:
    """A model's raw outputs [N, 1, classes] on its raw input tensors [N, 1, ...], in a process of its own.

    Raises SetupError: it does not run.
    """
    with tempfile.TemporaryDirectory(prefix="harness-golden-") as folder:
        ran = execute.run(job.write_tensors(Path(folder), model, [inputs], "cpu"), lambda *_: None, None)
    if failure := ran.failures.get(job.TENSORS):
        raise SetupError(f"{where}: does not run ({failure.reasons[0]}); convert again")
    outputs, *_ = ran.results[job.TENSORS].arrays.values()
    return outputs


def read(folder: Path) -> Golden:
    """A bundle's index. Raises SetupError: missing, damaged, of another schema, a model that is not the bundle's."""
    if not (folder / FILE).is_file():
        raise SetupError(f"{folder / FILE}: expected {EXPECTED}; there is none, name its folder with --golden")
    golden = shapes.read_json(folder / FILE, Golden, EXPECTED, "write it again: harness golden")
    if sha256(model(folder, golden)) != golden.model_sha256:
        raise SetupError(f"{folder / golden.model}: not the model that the bundle was written with; write it again")
    return golden


def model(folder: Path, golden: Golden) -> bytes:
    return read_capped(folder / golden.model, MAX_FILE_BYTES, "the bundle's model")


def tensors(folder: Path, golden: Golden, part: Literal["input", "output"]) -> Array:
    """The bundle's tensors, raw, [N, 1, ...]. Raises SetupError where one is not of its shape."""
    info: TensorInfo = getattr(golden, part)
    parts = []
    for image in golden.images:
        path = folder / getattr(image, part)
        try:
            content = read_capped(path, MAX_FILE_BYTES, f"the bundle's {part}")
            parts.append(np.frombuffer(content, info.little_endian).reshape(info.shape))
        except ValueError as error:
            raise SetupError(
                f"{path}: {len(content)} bytes, expected a tensor {list(info.shape)} of {info.dtype}; write the bundle "
                "again"
            ) from error
    return np.stack(parts)


def pictures(folder: Path, golden: Golden, places: Sequence[int]) -> list[Image.Image]:
    """Some of the bundle's images as Pillow opens them. Raises SetupError."""
    opened: list[Image.Image] = []
    for image in (golden.images[place] for place in places):
        try:
            picture = Image.open(io.BytesIO(read_capped(folder / image.image, MAX_FILE_BYTES, "the bundle's image")))
            picture.load()
        except (OSError, ValueError, SyntaxError) as error:
            raise SetupError(f"{folder / image.image}: unreadable ({error}); write the bundle again") from error
        opened.append(picture)
    return opened


def size(folder: Path, golden: Golden, place: int) -> tuple[int, int]:
    """Width and height of one of the bundle's images. Raises SetupError."""
    path = folder / golden.images[place].image
    try:
        with Image.open(path) as picture:
            return picture.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SetupError(f"{path}: unreadable ({error}); write the bundle again") from error


def _suffix(name: str) -> str:
    suffix = PurePosixPath(name).suffix
    return suffix if suffix[1:].isascii() and suffix[1:].isalnum() else ""


def _little_endian(tensor: Array) -> bytes:
    return np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<")).tobytes()


def _info(quantization: Quantization, tensors: Array) -> TensorInfo:
    return shapes.convert(
        {
            "dtype": str(tensors.dtype),
            "shape": list(tensors.shape[1:]),
            "scale": quantization.scale,
            "zero_point": quantization.zero_point,
        },
        TensorInfo,
        "tensor",
    )


def _words(info: TensorInfo, real: str) -> str:
    if not info.scale:
        return real
    return f"{real}, stored as round(value / {info.scale:.9g}) + {info.zero_point}"


def _classes(golden: Golden) -> str:
    names = golden.spec.class_names
    if golden.output.shape[-1] == 1:
        return f"the probability of {names[1]}, not of {names[0]}"
    return f"probabilities of {len(names)} classes"


def _pixels(spec: ModelSpec) -> str:
    """In words, what becomes of a pixel."""
    low, high = spec.pixel_range
    steps = f"0 to 255 become {low:g} to {high:g}"
    if spec.mean:
        steps += f", then minus {', '.join(f'{value:g}' for value in spec.mean)}"
    if spec.std:
        steps += f", then divided by {', '.join(f'{value:g}' for value in spec.std)}"
    return f"{spec.images}, {steps}"


def _filled(text: str, golden: Golden) -> str:
    values = {
        "variant": golden.variant,
        "model_file": golden.model,
        "model_sha256": golden.model_sha256[:12],
        "images": str(len(golden.images)),
        "input.dtype": golden.input.dtype,
        "input.shape": str(list(golden.input.shape)),
        "output.dtype": golden.output.dtype,
        "output.shape": str(list(golden.output.shape)),
        "input_words": _words(golden.input, _pixels(golden.spec)),
        "output_words": _words(golden.output, _classes(golden)),
        "tolerance": f"{golden.tolerance:g}",
        "bundle": golden.bundle,
        "first_image": golden.images[0].name,
    }
    for key, value in values.items():
        text = text.replace("{{ " + key + " }}", value)
    return text
