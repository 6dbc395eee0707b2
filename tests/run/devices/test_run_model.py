"""LiteRT's run_model, by stand-ins that print exactly what the real one does (litert/tools/run_model.cc)."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pytest

from harness.artifacts import manifest, model_tensors
from harness.cli import main
from harness.core.errors import Exit, SetupError
from harness.core.files import sha256
from harness.core.outcome import Outcome
from harness.images import dataset
from harness.records import record
from harness.run import execute, job, worker
from harness.run.devices import listing, run_model, uri
from harness.run.devices.virtual import Virtual
from harness.run.execute import Outputs
from harness.run.job import Job
from models.config import DIGITS
from tests.conftest import FEW_IMAGES_POLICY
from tests.run.devices.rig import silent

STARTED = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1752049893.052118    9534 run_model.cc:282] Model: model.tflite
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
I0000 00:00:1752049893.062118    9534 run_model.cc:289] Signature index: 0
I0000 00:00:1752049893.062118    9534 run_model.cc:291] Prepare input buffers
I0000 00:00:1752049893.062118    9534 tensor_utils.cc:35] Using inputs from: inputs
I0000 00:00:1752049893.062118    9534 run_model.cc:218] Input buffer 0:
I0000 00:00:1752049893.062118    9534 run_model.cc:219]   Size: 3136 bytes
I0000 00:00:1752049893.062118    9534 run_model.cc:220]   ElementType: 1
I0000 00:00:1752049893.062118    9534 tensor_utils.h:169]     0: 0.5
"""
ENDED = """\
I0000 00:00:1752049893.072118    9534 run_model.cc:335] First run took 12345 microseconds
I0000 00:00:1752049893.072118    9534 run_model.cc:351] Model run completed
"""


def printed(outputs: npt.NDArray[np.generic], number: int = 0) -> str:
    """An output's values: float to six digits, int8 as if it were unsigned."""
    kind = {"float32": 1, "int8": 9}[str(outputs.dtype)]
    values = outputs.view(np.uint8) if kind == 9 else outputs
    words = [
        f"Output buffer {number}:", f"  Size: {outputs.nbytes} bytes", f"  ElementType: {kind}", "  BufferType: 1",
        "  Dimensions: [", "    1", f"    {len(values)}", "  ]", f"  Total logical elements: {len(values)}",
        "  Stats:", f"    Min: {values.min():.6g}", f"    Max: {values.max():.6g}", "    Avg: 0.0909091",
        "    Zeros: 3 (27.2727%)", f"  Beginning {len(values)} elements:",
        *(f"    {place}: {value:.6g}" for place, value in enumerate(values.tolist())),
    ]  # fmt: skip
    return "".join(f"I0000 00:00:1752049893.072118    9534 run_model.cc:218] {word}\n" for word in words)


def stand_in(path: Path, answers: dict[str, str], *, accelerator: str = "cpu", shell: str = "/bin/sh") -> Path:
    """A program that insists on our flags, and prints what belongs to the input's SHA-256."""
    cases = "\n".join(f"{digest}) cat >&2 <<'END'\n{STARTED}{text}{ENDED}END\n;;" for digest, text in answers.items())
    path.write_text(
        f"#!{shell}\n"
        'for word in "$@"; do case $word in --graph=*) graph=${word#*=};; --input_dir=*) inputs=${word#*=};; '
        f"--accelerator={accelerator}|--print_tensors=true|--compare_numerical=true|--sample_size=11|--extra=1) ;; "
        '*) echo "E0000 00:00:1752049893.052118 1 x.cc:1] unknown $word" >&2; exit 1;; esac; done\n'
        'test -s "$graph" || exit 1\n'
        'digest=$(sha256sum < "$inputs/image.raw"); digest=${digest%% *}\n'
        f"case $digest in\n{cases}\n*) echo 'E0000 00:00:1752049893.052118 1 x.cc:2] no such input' >&2; exit 1;;\n"
        "esac\n"
    )
    path.chmod(0o755)
    return path


@pytest.fixture
def written(tiny_variants: Path, few_images: Path, tmp_path: Path) -> Job:
    """float32's and int8's answers to 5 images."""
    folder = tmp_path / "job"
    folder.mkdir()
    known = manifest.read(tiny_variants)
    contents = manifest.contents(tiny_variants, {kind: known[kind] for kind in ("float32", "int8")})
    data = dataset.take(dataset.load(few_images, DIGITS), np.arange(0, 110, 22))
    return job.write(folder, contents, data, None, 1)


def native(content: bytes, images: npt.NDArray[np.float32]) -> dict[str, str]:
    """What run_model prints of each image, by its input's SHA-256."""
    outputs = worker.answers({"x": content}, images, {"name": "x", "parallel": 1})["outputs"]
    prepared = model_tensors.read(content).inputs[0].quantize(images)
    return {sha256(t.tobytes()): printed(row) for t, row in zip(prepared, outputs, strict=True)}


def inputs_of(written: Job) -> npt.NDArray[np.float32]:
    return np.asarray(np.load(written.folder / json.loads(written.plan.read_text())["inputs"][0]))


def ran(address: str, written: Job, binary: Path, *flags: str) -> Outputs:
    with uri.device(f"{address}?run_model={quote(str(binary))}&run_flags={quote(' '.join(flags))}") as device:
        device.probe()
        return execute.run(written, silent, device)


def test_its_answers_are_those_of_the_interpreter(written: Job, tmp_path: Path) -> None:
    """float32 to the printed digits, int8 to the bit; the record says what answered."""
    images = inputs_of(written)
    files = {task["name"]: task["variants"][task["name"]][0] for task in json.loads(written.plan.read_text())["tasks"]}
    contents = {kind: (written.folder / file).read_bytes() for kind, file in files.items()}
    answers = native(contents["float32"], images) | native(contents["int8"], images)
    outputs = ran("local", written, stand_in(tmp_path / "run model", answers), "--extra=1")
    assert not outputs.failures
    for kind, content in contents.items():
        expected = worker.answers({kind: content}, images, {"name": kind, "parallel": 1})
        result = outputs.results[kind]
        assert result.arrays["outputs"].dtype == expected["outputs"].dtype
        assert np.allclose(result.arrays["outputs"], expected["outputs"], rtol=1e-5, atol=0)
        for name in ("scale", "zero_point", "input_means"):
            assert np.array_equal(result.arrays[name], expected[name])
        assert result.ran.runtime == result.machine.runtime == "run_model (experimental)"


def test_on_a_phone_over_adb_it_is_a_cell_like_any(
    phone: Virtual, tiny_variants: Path, tiny_model: Path, few_images: Path, tmp_path: Path
) -> None:
    """The whole check: on the GPU, of some images, compared with Keras and with this machine. No Python is sent."""
    content = (tiny_variants / "float32.tflite").read_bytes()
    data = dataset.take(dataset.load(few_images, DIGITS), np.arange(5) * 22)
    binary = stand_in(tmp_path / "run_model", native(content, data.inputs()), accelerator="gpu", shell="/system/bin/sh")
    library = tmp_path / "libLiteRt.so"
    library.write_text("a library")
    binary.write_text(
        binary.read_text().replace(
            "\ndigest=", '\n[ "$(cat $LD_LIBRARY_PATH/libLiteRt.so)" = "a library" ] || exit 1\ndigest='
        )
    )
    path = tmp_path / "check.json"
    command = ["check", "--device", phone.start(), "--models", tiny_variants, "--reference", tiny_model]
    command += ["--data", few_images, "--subset", 5, "--variants", "float32", "--policy", FEW_IMAGES_POLICY]
    command += ["--run-model", binary, "--run-file", library, "--accelerator", "gpu", "--json", path]
    assert main([*map(str, command)]) in (Exit.PASS, Exit.INCONCLUSIVE)
    stored = record.read(path)
    (cell,) = stored.cells
    assert cell.name == "float32@gpu"
    assert cell.ran
    assert cell.ran.runtime == stored.machine.runtime == "run_model (experimental)"
    assert cell.host
    assert (cell.host.images, cell.host.flips) == (5, 0)
    assert stored.data.images == 5
    assert stored.device.uri.endswith("?run_model=run_model")
    assert "runtime" not in stored.device.traffic.pushed_bytes


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'E0000 00:00:1.1 1 run_model.cc:9] Failed to compile' >&2; exit 1", "failed: Failed to compile"),
        ("kill -11 $$", "the worker ended with exit code -11"),
    ],
    ids=("refused", "crash"),
)
def test_a_model_that_it_does_not_run_fails(script: str, reason: str, written: Job, tmp_path: Path) -> None:
    """With its last line of an error, or the signal that ended it."""
    binary = tmp_path / "run_model"
    binary.write_text(f"#!/bin/sh\n{script}\n")
    binary.chmod(0o755)
    failures = ran("local", written, binary).failures
    assert set(failures) == {"float32", "int8"}
    assert failures["int8"].outcome is Outcome.FAIL
    assert reason in failures["int8"].reasons[0]


ROW = printed(np.linspace(0, 1, 11, dtype=np.float32))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no 'Output buffer 0:'"),
        (ROW.replace("    10: 1\n", "    x\n"), "values of 10 of 11 elements"),
        (ROW[: len(ROW) // 2], "values of"),
        (ROW.replace("ElementType: 1", "ElementType: 7"), "an element type that it does not print as numbers"),
        (ROW.replace("ElementType: 1", "ElementType: 9"), "numbers that the type does not have"),
        (ROW.replace("Output buffer 0", "Output buffer 1"), "output 1 after 0 outputs"),
        (ROW.replace("    3: 0.3", "    3: 0.3x"), "could not convert"),
        (ROW + printed(np.zeros(2, np.float32), 1), "2 outputs of 1"),
    ],
    ids=("empty", "a value short", "cut", "int16", "no int8", "number", "no number", "another model's"),
)
def test_what_is_not_understood_is_kept(
    text: str, reason: str, written: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says why, and where the printed text is, to be sent."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    binary = tmp_path / "run_model"
    (tmp_path / "text").write_text(text)
    binary.write_text(f"#!/bin/sh\ncat {tmp_path / 'text'}\n")
    binary.chmod(0o755)
    with pytest.raises(SetupError, match=r"is not understood .*please send") as caught:
        ran("local", written, binary)
    assert reason in str(caught.value)
    assert (tmp_path / "cache" / "tflite-harness" / run_model.LOG).read_text() == text


def test_nan_and_signs_are_read() -> None:
    """As C++ prints them."""
    values = np.array([np.nan, -np.inf, -1e-30, 65504], np.float32)
    (read,) = run_model.outputs(STARTED + printed(values).replace("nan", "-nan") + ENDED)
    assert np.array_equal(read, values, equal_nan=True)
    (signed,) = run_model.outputs(printed(np.array([-128, -1, 0, 127], np.int8)))
    assert signed.tolist() == [-128, -1, 0, 127]


def test_what_cannot_be_is_one_line(written: Job, tmp_path: Path) -> None:
    """No binary, a text that is none, an accelerator that it does not have, odd flags."""
    with pytest.raises(SetupError, match="expected LiteRT's run_model for the device; there is none"):
        uri.device("local?run_model=/none")
    binary = tmp_path / "run_model"
    binary.write_text("\x7fELF nonsense")
    binary.chmod(0o755)
    with pytest.raises(SetupError, match=r"cannot be run here .*; name a binary for this machine"):
        ran("local", written, binary)
    with pytest.raises(SetupError, match="--accelerator webgpu: "):
        execute.check_accelerators("adb://x?run_model=y", ("webgpu",))
    execute.check_accelerators("adb://x?run_model=y", ("cpu", "gpu", "npu"))
    with pytest.raises(SetupError, match="/none: expected a library of run_model"):
        uri.device(f"local?run_model={binary}&run_files=/none")
    assert "litert/tools:run_model" in listing.text([])
    with pytest.raises(SetupError, match="run_flags"):
        uri.device(f"local?run_model={binary}&run_flags='")
