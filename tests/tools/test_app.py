"""`harness golden` and `harness app`: a bundle of the tiny model, and what right and wrong apps write of it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from harness.artifacts.outputs import softmax
from harness.cli import main
from harness.tools import app_readings, golden
from harness.tools.app_readings import Images, Reading
from tests.conftest import ROOT, refusal
from tests.tools.conftest import BUNDLE_IMAGES as COUNT


class App:
    """An app's own view of a bundle: what a right one feeds and gives. Mistakes are made with these."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.golden = folder, golden.read(folder)
        self.names = [image.name for image in self.golden.images]
        self.inputs = golden.tensors(folder, self.golden, "input")
        self.outputs = golden.tensors(folder, self.golden, "output")
        self.images = Images(golden.pictures(folder, self.golden, range(COUNT)), self.golden.spec)

    @property
    def real_inputs(self) -> np.ndarray:
        return self.golden.input.real(self.inputs)

    @property
    def real_outputs(self) -> np.ndarray:
        return self.golden.output.real(self.outputs).reshape(COUNT, -1)

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """Real outputs of the model on other inputs."""
        outputs = golden.run(golden.model(self.folder, self.golden), inputs.astype(self.inputs.dtype), "model")
        return self.golden.output.real(outputs).reshape(COUNT, -1)


def write_lines(path: Path, names: list[str], **parts: np.ndarray) -> Path:
    lines = [
        json.dumps({"image": name} | {part: values[i].reshape(-1).tolist() for part, values in parts.items()})
        for i, name in enumerate(names)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_bundle_holds_what_shows_mistakes(int8_bundle: Path) -> None:
    """Every class; dark, bright, coloured, odd and turned images; tensors of the sizes that its index says."""
    bundle = golden.read(int8_bundle)
    assert len(bundle.images) == COUNT
    assert {image.label for image in bundle.images} == set(range(11))
    kinds = {image.kind.partition(",")[0] for image in bundle.images}
    assert kinds >= {"asymmetric", "dark", "bright", "coloured", "of another size", "turned by EXIF"}
    opened = golden.pictures(int8_bundle, bundle, range(COUNT))
    assert len({image.getexif().get(0x0112, 1) for image in opened}) > 2
    assert len({image.size for image in opened}) > 2
    assert golden.tensors(int8_bundle, bundle, "input").shape == (COUNT, 1, 28, 28, 1)
    assert golden.tensors(int8_bundle, bundle, "output").dtype == np.int8
    jsonschema.validate(
        json.loads((int8_bundle / "golden.json").read_text()),
        json.loads((ROOT / "harness/output/schemas/golden.json").read_text()),
    )
    readme = (int8_bundle / "README.md").read_text()
    assert "{{" not in readme
    assert bundle.bundle in readme
    assert {path.name for path in int8_bundle.iterdir()} >= {"golden.test.ts", "GoldenTest.kt", "GoldenTests.swift"}


@pytest.mark.parametrize(
    ("kind", "form"), [("int8", "raw"), ("int8", "real"), ("float32", "npz"), ("float32", "real"), ("int8", "outputs")]
)
def test_a_right_app_is_right(
    kind: str, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    """Whether it writes stored or real inputs, lines or .npz, or outputs alone: too few images, but no mistake."""
    app = App(request.getfixturevalue(f"{kind}_bundle"))
    report = tmp_path / "report.json"
    if form == "npz":
        dump = tmp_path / "dump.npz"
        np.savez(dump, images=np.array(app.names), input=app.inputs, output=app.real_outputs)
    else:
        parts = {"input": app.inputs if form == "raw" else app.real_inputs.round(4), "output": app.real_outputs}
        if form == "outputs":
            del parts["input"]
        dump = write_lines(tmp_path / "dump.jsonl", app.names, **parts)
    assert main(["app", str(dump), "--golden", str(app.folder), "--json", str(report)]) == 3
    shown = capsys.readouterr().out
    assert "output: right" in shown
    assert ("input: right" in shown) == (form != "outputs")
    assert f"{kind} in the app" in shown
    assert "verdict: INCONCLUSIVE" in shown
    schema = json.loads((ROOT / "harness/output/schemas/app.json").read_text())
    jsonschema.validate(json.loads(report.read_text()), schema)


INPUT_MISTAKES: dict[str, Callable[[App], np.ndarray]] = {
    "mirrored left to right": lambda app: app.images.read(Reading(orientation="mirrored left to right")) / 255,
    "EXIF orientation not applied": lambda app: app.images.read(Reading(orientation=app_readings.EXIF_IGNORED)) / 255,
    "scaled twice": lambda app: app.images.read(Reading()) / 255 / 255,
    "nearest neighbour instead of bilinear": lambda app: (
        app.images.read(Reading(resizing="nearest neighbour instead of bilinear")) / 255
    ),
}


@pytest.mark.parametrize("mistake", INPUT_MISTAKES)
def test_a_mistake_with_images_is_named_and_fails(
    mistake: str, float32_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a whole dump of what such an app would write; the chain shows where answers changed."""
    app = App(float32_bundle)
    inputs = INPUT_MISTAKES[mistake](app).reshape(app.inputs.shape)
    dump = write_lines(tmp_path / "dump.jsonl", app.names, input=inputs, output=app.run(inputs))
    assert main(["app", str(dump), "--golden", str(float32_bundle)]) == 1
    shown = capsys.readouterr().out
    assert f"input: {mistake} (" in shown
    assert "output: right" in shown
    assert "float32 on the app's tensors -> float32 in the app  0 (-0 +0)" in re.sub(" {2,}", "  ", shown)
    assert "verdict: FAIL" in shown


@pytest.mark.parametrize(
    ("mistake", "make"),
    [
        ("output not dequantized", lambda app: app.outputs.reshape(COUNT, -1)),
        ("softmax applied twice", lambda app: softmax(app.real_outputs)),
        ("labels shifted by 1 of 11", lambda app: np.roll(app.real_outputs, 1, axis=1)),
    ],
)
def test_a_mistake_with_outputs_is_named_and_fails(
    mistake: str,
    make: Callable[[App], np.ndarray],
    int8_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of an app that fed the images rightly."""
    app = App(int8_bundle)
    dump = write_lines(tmp_path / "dump.jsonl", app.names, input=app.inputs, output=make(app))
    assert main(["app", "check", str(dump), "--golden", str(int8_bundle)]) == 1
    shown = capsys.readouterr().out
    assert "input: right" in shown
    assert f"output: {mistake} (" in shown


def test_inputs_alone_are_judged_by_what_the_model_gives_on_them(
    int8_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bytes fed to an int8 model: named, and what the model makes of them is in the chain."""
    app = App(int8_bundle)
    pixels = app.images.read(Reading()).round().astype(np.uint8)
    dump = write_lines(tmp_path / "dump.jsonl", app.names, input=pixels)
    assert main(["app", str(dump), "--golden", str(int8_bundle)]) == 1
    shown = capsys.readouterr().out
    assert "input: input zero point not applied (" in shown
    assert "output: not in the dump" in shown
    assert "int8 -> int8 on the app's tensors" in shown


def test_a_mistake_with_images_is_named_from_outputs_alone(
    float32_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By making each mistake and running the model; also beside a mistake with the outputs."""
    app = App(float32_bundle)
    mirrored = INPUT_MISTAKES["mirrored left to right"](app).reshape(app.inputs.shape)
    dump = write_lines(tmp_path / "dump.jsonl", app.names, output=softmax(app.run(mirrored)))
    assert main(["app", str(dump), "--golden", str(float32_bundle)]) == 1
    shown = capsys.readouterr().out
    assert "input: mirrored left to right (" in shown
    assert "output: softmax applied twice (" in shown


def test_an_unknown_mistake_is_none_of_these(
    int8_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Noise as input, and outputs that are another image's."""
    app = App(int8_bundle)
    noise = np.random.default_rng(0).uniform(0, 1, app.inputs.shape)
    dump = write_lines(tmp_path / "dump.jsonl", app.names, input=noise, output=np.roll(app.real_outputs, 1, axis=0))
    assert main(["app", str(dump), "--golden", str(int8_bundle)]) == 1
    assert capsys.readouterr().out.count("none of these mistakes explains it") >= 2


Edit = Callable[[list[dict[str, Any]]], object]
BAD: list[tuple[str, Edit]] = [
    ("is not an image of this bundle", lambda lines: lines[0].update(image="other.jpg")),
    ("is in it twice", lambda lines: lines.append(lines[0])),
    ("NaN or infinity", lambda lines: lines[1]["input"].__setitem__(3, float("nan"))),
    ("expected", lambda lines: lines[1]["input"].__setitem__(3, None)),
    ("expected", lambda lines: lines[1]["input"].__setitem__(3, "0.5")),
    ("783 values in one image, 784", lambda lines: lines[1]["input"].pop()),
    ("unknown key 'inputs'; did you mean 'input'?", lambda lines: lines[1].update(inputs=[1])),
    ("of 39 of 40 images", lambda lines: lines[1].pop("input")),
    ("no images", lambda lines: lines.clear()),
    ("of bundle 'abc'", lambda lines: lines[2].update(bundle="abc")),
    ("neither input nor output", lambda lines: [line.pop(part) for line in lines for part in ("input", "output")]),
    ("output has 3 values an image, the model's has 11", lambda lines: [x.update(output=[1, 0, 0]) for x in lines]),
    ("lists of different sizes", lambda lines: lines[0].update(input=[[1, 2], [3]])),
    ("neither a list nor", lambda lines: lines[0].update(input=5)),
]


@pytest.mark.parametrize(("complaint", "edit"), BAD, ids=[complaint for complaint, _ in BAD])
def test_a_bad_dump_is_refused_in_one_line(
    complaint: str, edit: Edit, int8_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other images, damaged lines, values that are none."""
    app = App(int8_bundle)
    lines = [
        {"image": name, "input": app.inputs[i].reshape(-1).tolist(), "output": app.real_outputs[i].tolist()}
        for i, name in enumerate(app.names)
    ]
    edit(lines)
    dump = tmp_path / "dump.jsonl"
    dump.write_text("\n".join(map(json.dumps, lines)))
    assert complaint in refusal(capsys, main(["app", str(dump), "--golden", str(int8_bundle)])).replace(
        "= 5: expected a list", "neither a list nor"
    )


def test_other_bad_files_are_refused_in_one_line(
    int8_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Missing, empty, truncated, no text, huge; arrays that do not pair or hold objects; a bundle that is none."""
    app = App(int8_bundle)
    whole = write_lines(tmp_path / "whole.jsonl", app.names, output=app.real_outputs)
    truncated, binary, huge = tmp_path / "truncated.jsonl", tmp_path / "binary.jsonl", tmp_path / "huge.jsonl"
    truncated.write_bytes(whole.read_bytes()[:-20])
    binary.write_bytes(bytes(range(256)) * 9)
    with huge.open("wb") as file:
        file.truncate(600_000_000)
    np.savez(tmp_path / "short.npz", images=np.array(app.names), output=app.real_outputs[:5])
    np.savez(tmp_path / "nan.npz", images=np.array(app.names), output=app.real_outputs * np.nan)
    np.savez(tmp_path / "objects.npz", images=np.array(app.names, object), output=app.real_outputs)
    np.savez(tmp_path / "text.npz", images=np.array(app.names), output=app.real_outputs.astype(str))
    np.savez(tmp_path / "named.npz", names=np.array(app.names), output=app.real_outputs)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "short.npz").read_bytes()[:300])
    (tmp_path / "empty.jsonl").touch()
    for name, complaint in {
        "missing.jsonl": "No such file",
        "missing.npz": "No such file",
        "empty.jsonl": "no images",
        "truncated.jsonl": "line 40",
        "binary.jsonl": "line 1",
        "huge.jsonl": "at most 500 MB",
        "short.npz": "one for each of 40 images",
        "nan.npz": "NaN or infinity",
        "objects.npz": "objects",
        "text.npz": "expected numbers",
        "named.npz": "unknown array 'names'",
        "cut.npz": "damaged",
    }.items():
        assert complaint in refusal(capsys, main(["app", str(tmp_path / name), "--golden", str(int8_bundle)]))
    assert "a golden bundle" in refusal(capsys, main(["app", str(whole), "--golden", str(tmp_path)]))


def test_a_damaged_bundle_is_refused_in_one_line(
    int8_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another model, a tensor that is cut, an image that is none, a path that leaves the folder."""
    app = App(int8_bundle)
    wrong = (app.inputs.astype(int) + 9).clip(-128, 127)
    dump = write_lines(tmp_path / "dump.jsonl", app.names, input=wrong)
    index = json.loads((int8_bundle / "golden.json").read_text())
    first = index["images"][0]
    damages: dict[str, Callable[[Path], object]] = {
        "not the model": lambda copy: (copy / index["model"]).write_bytes(b"x"),
        "expected a tensor [1, 28, 28, 1] of int8": lambda copy: (copy / first["input"]).write_bytes(b"x"),
        "unreadable": lambda copy: (copy / first["image"]).write_bytes(b"x"),
        "a plain name": lambda copy: (copy / "golden.json").write_text(
            json.dumps(index | {"images": [first | {"input": "../../etc/passwd"}]})
        ),
        "schema": lambda copy: (copy / "golden.json").write_text(json.dumps(index | {"schema": "harness-golden/9"})),
    }
    for number, (complaint, damage) in enumerate(damages.items()):
        copy = Path(shutil.copytree(int8_bundle, tmp_path / str(number)))
        damage(copy)
        assert complaint in refusal(capsys, main(["app", str(dump), "--golden", str(copy)]))


def test_a_bundle_of_what_is_not_there_is_refused(
    tiny_model: Path, tiny_variants: Path, few_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown variant; files that are no images."""
    flags = ["--out", str(tmp_path / "out"), "--models", str(tiny_variants), "--reference", str(tiny_model)]
    said = refusal(capsys, main(["golden", "int7", *flags, "--data", str(few_images)]))
    assert said.startswith("harness app golden: ")
    assert "has no variant 'int7'" in said
    images = Path(shutil.copytree(few_images, tmp_path / "images"))
    (images / "3_999.jpg").write_bytes(b"no image")
    assert "3_999.jpg" in refusal(capsys, main(["golden", "int8", *flags, "--data", str(images)]))
    assert not (tmp_path / "out").exists()


def test_a_bundle_replaces_an_earlier_one(
    float32_bundle: Path, tiny_variants: Path, tiny_model: Path, few_images: Path, tmp_path: Path
) -> None:
    """In the same folder: no file of the other stays, but for what the app's developer put there."""
    folder = Path(shutil.copytree(float32_bundle, tmp_path / "golden"))
    (folder / "notes.txt").write_text("mine")
    command = ["golden", "int8", "--out", str(folder), "--images", str(COUNT), "--models", str(tiny_variants)]
    index = json.loads((folder / "golden.json").read_text())
    stale = folder / "inputs" / "999-stale.bin"
    stale.touch()
    index["images"][0]["input"] = "inputs/999-stale.bin"
    (folder / "golden.json").write_text(json.dumps(index))
    assert main([*command, "--reference", str(tiny_model), "--data", str(few_images)]) == 0
    assert not stale.exists()
    assert not (folder / "float32.tflite").exists()
    assert (folder / "notes.txt").exists()
    assert golden.read(folder).variant == "int8"
