"""Google's benchmark_model, by stand-ins that print and write exactly what the real ones do."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest

from harness.artifacts import manifest
from harness.cli import main
from harness.core.errors import SetupError
from harness.images import dataset
from harness.records import record
from harness.run import job
from harness.run.devices import benchmark_model, bundle
from harness.run.devices.base import BenchmarkFigures, Device
from harness.run.devices.benchmark_model import BenchmarkModel
from harness.run.devices.local import Local
from harness.run.devices.remote import Remote
from harness.run.job import Job
from models.config import DIGITS
from tests.conftest import FEW_IMAGES_POLICY
from tests.run.devices.rig import Here, Rig

TFLITE = """\
INFO: STARTING!
INFO: Loaded model
INFO: Inference timings in us: Init: 5685, First inference: 18535, Warmup (avg): 1.4e+04, Inference (avg): 14575.2
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual
"""
LITERT = """\
INFO: [benchmark_litert_model.h:90]
========== BENCHMARK RESULTS ==========
INFO: [benchmark_litert_model.h:92] Signature name:       serving_default
INFO: [benchmark_litert_model.h:94] Model initialization: 23744.73 ms
INFO: [benchmark_litert_model.h:96] Warmup (first):       7441.04 ms
INFO: [benchmark_litert_model.h:98] Warmup (avg):         7441.04 ms (1 runs)
INFO: [benchmark_litert_model.h:100] Inference (avg):      7430.20 ms (10 runs)
INFO: [benchmark_litert_model.h:104] Inference (min):      7416.40 ms
INFO: [benchmark_litert_model.h:106] Inference (max):      7448.86 ms
INFO: [benchmark_litert_model.h:108] Inference (std):      9.92
INFO: [benchmark_litert_model.h:115] Throughput:           27.46 MB/s
INFO: [benchmark_litert_model.h:144] ======================================
"""


def message(*fields: tuple[int, float | int | bytes]) -> bytes:
    """A protocol-buffer message."""
    content = b""
    for number, value in fields:
        if isinstance(value, bytes):
            content += bytes([number << 3 | 2, len(value)]) + value
        elif isinstance(value, int):
            content += bytes([number << 3, value & 0x7F | 0x80, value >> 7])
        else:
            content += bytes([number << 3 | 5]) + struct.pack("<f", value)
    return content


# avg, min, max, stddev, median, p5, p95, init, first, warm-up; model size and number of runs.
RESULT = message(
    (1, b"name"),
    (2, message(*enumerate((14.5752, 13.5, 16.25, 0.5, 14.5, 13.75, 15.75, 5.625, 18.5, 14.0), start=1))),
    (4, message((1, 0.25), (2, 300))),
)


@pytest.fixture
def tiny_job(tiny_variants: Path, images: Path, tmp_path: Path) -> Job:
    folder = tmp_path / "job"
    folder.mkdir()
    contents = manifest.contents(tiny_variants, {"int8": manifest.read(tiny_variants)["int8"]})
    return job.write(folder, contents, dataset.load(images, DIGITS), None, 2)


@pytest.fixture(params=("local", "remote"))
def device(request: pytest.FixtureRequest, tmp_path: Path) -> Device:
    if request.param == "local":
        return Local()
    return Remote(Here(tmp_path / "home"), "harness", lambda *_: bundle.installed(sys.executable))


def stand_in(folder: Path, printed: str, result: bytes | None = None, code: int = 0) -> Path:
    """A program that insists on the model and our flags, prints, and writes the file that it is asked for."""
    binary = folder / "benchmark model"
    binary.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        "flags = dict(word.split('=', 1) for word in sys.argv[1:] if '=' in word)\n"
        "assert os.path.getsize(flags['--graph']) > 1000 and flags['--num_threads'] == '2'\n"
        f"if {result!r} is not None:\n    open(flags['--result_file_path'], 'wb').write({result!r})\n"
        f"sys.stderr.write({printed!r})\nsys.exit({code})\n"
    )
    binary.chmod(0o755)
    return binary


def measured(device: Device, binary: Path, written: Job, *flags: str) -> BenchmarkFigures:
    with device:
        device.probe()
        device.push(written)
        results = benchmark_model.run(device, BenchmarkModel(binary, flags), written, ["int8", "float32"], 2)
    assert set(results) == {"int8"}
    return results["int8"]


def test_tensorflow_lites_tool(device: Device, tiny_job: Job, tmp_path: Path) -> None:
    """Its one line of microseconds."""
    figures = measured(device, stand_in(tmp_path, TFLITE), tiny_job)
    expected = {"init_s": 0.005685, "first_s": 0.018535, "warmup_s": 0.014, "inference_s": 0.0145752}
    assert {name: getattr(figures, name) for name in expected} == pytest.approx(expected)
    assert (figures.runs, figures.median_s, figures.problem) == (None, None, "")


def test_litert_s_tool(device: Device, tiny_job: Job, tmp_path: Path) -> None:
    """Its lines of milliseconds."""
    figures = measured(device, stand_in(tmp_path, LITERT), tiny_job)
    expected = {"init_s": 23.74473, "first_s": 7.44104, "warmup_s": 7.44104, "inference_s": 7.4302}
    expected |= {"min_s": 7.4164, "max_s": 7.44886, "runs": 10}
    assert {name: getattr(figures, name) for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("printed", [LITERT, TFLITE, ""], ids=("litert", "tflite", "nothing"))
def test_the_result_file_counts_more_than_what_is_printed(
    printed: str, device: Device, tiny_job: Job, tmp_path: Path
) -> None:
    """It has the median and percentiles too, and is not rounded."""
    figures = measured(device, stand_in(tmp_path, printed, RESULT), tiny_job)
    assert figures.inference_s == pytest.approx(0.0145752)
    assert (figures.min_s, figures.max_s, figures.median_s) == (0.0135, 0.01625, 0.0145)
    assert (figures.p5_s, figures.p95_s, figures.runs) == (0.01375, 0.01575, 300)
    assert (figures.init_s, figures.first_s, figures.warmup_s) == (0.005625, 0.0185, 0.014)
    assert "result_file_path" not in figures.flags


@pytest.mark.parametrize(
    "result", [b"", b"text", RESULT[:-5], RESULT[:9], b"\xff" * 1000, b"\x12\xff\xff\xff\x7f"], ids=range(6)
)
def test_a_damaged_result_file_is_left_aside(result: bytes) -> None:
    """What was printed counts then."""
    figures = benchmark_model.figures(0, LITERT, result, "")
    assert figures.inference_s == pytest.approx(7.4302)


def test_numbers_that_are_not_finite_are_no_figures() -> None:
    """Neither from the file nor from what was printed."""
    nan = message((2, message((1, float("nan")), (5, 14.5))))
    assert benchmark_model.figures(0, "", nan, "").problem == "exit code 0: it printed nothing"
    assert benchmark_model.figures(0, f"Inference (avg): {'9' * 400} ms (1 runs)", b"", "").inference_s is None


def test_a_tool_that_fails(device: Device, tiny_job: Job, tmp_path: Path) -> None:
    """The end of what it printed is the reason, whatever else it printed."""
    binary = stand_in(tmp_path, f"{LITERT}ERROR: \x1b[31mFailed to compile model.\n", code=1)
    figures = measured(device, binary, tiny_job)
    assert figures.inference_s is None
    assert figures.problem == "exit code 1: ERROR:  [31mFailed to compile model."
    (note,) = benchmark_model.notes({"int8": figures}, {})
    assert note.endswith(f"gave no times: {figures.problem}")


def test_the_users_flags(device: Device, tiny_job: Job, tmp_path: Path) -> None:
    """They come last, with spaces too, and replace ours of the same name."""
    binary = stand_in(tmp_path, TFLITE)
    text = binary.read_text().replace(
        "import os, sys\n", "import os, sys\nassert sys.argv[-2:] == ['--num_runs=7', '--x=a b'], sys.argv\n"
    )
    binary.write_text(text)
    figures = measured(device, binary, tiny_job, "--num_runs=7", "--x=a b")
    assert figures.flags == "--num_threads=2 --use_xnnpack=true --warmup_min_secs=0.5 --num_runs=7 '--x=a b'"
    (note,) = benchmark_model.notes({"int8": figures}, {"int8": 0.0123})
    assert note.endswith("measured 14.58 ms on average, of random input; ours: 12.30 ms, median")


def test_a_check_records_what_it_measured(rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`harness check --benchmark-model`: in the record's device, and a line for a person."""
    binary = stand_in(tmp_path, TFLITE)
    binary.write_text(binary.read_text().replace("== '2'", "== '1'"))
    words = ["check", "--models", str(rig.models), "--reference", str(rig.model)]
    words += ["--data", str(rig.images), "--json", str(tmp_path / "c.json"), "--variants", "int8", "--no-latency"]
    words += ["--policy", str(FEW_IMAGES_POLICY)]
    main([*words, "--benchmark-model", str(binary), "--benchmark-flag=--use_gpu=true"])
    figures = (record.read(tmp_path / "c.json").device.benchmark_model or {})["int8"]
    assert figures.inference_s == pytest.approx(0.0145752)
    assert figures.flags.endswith(" --use_gpu=true")
    assert "measured 14.58 ms on average, of random input" in capsys.readouterr().out


def test_a_binary_that_cannot_be_run(tiny_job: Job, tmp_path: Path) -> None:
    """Not there, or not executable: one line each."""
    with pytest.raises(SetupError, match="expected the benchmark_model binary for the device; there is none"):
        BenchmarkModel(tmp_path / "no")
    binary = stand_in(tmp_path, TFLITE)
    binary.chmod(0o644)
    with pytest.raises(SetupError, match="cannot be run here"):
        measured(Local(), binary, tiny_job)


def test_full_delegation_leaves_out_the_cpu(tiny_job: Job, tmp_path: Path) -> None:
    """LiteRT's tool aborts if both are asked for, and the CPU is its default; the user's own word counts."""
    binary = stand_in(tmp_path, LITERT)
    asked = measured(Local(), binary, tiny_job, "--use_gpu=true", "--require_full_delegation=true")
    assert asked.flags.endswith("--use_gpu=true --require_full_delegation=true --use_cpu=false")
    asked = measured(Local(), binary, tiny_job, "--require_full_delegation", "--use_cpu=true")
    assert asked.flags.endswith("--require_full_delegation --use_cpu=true")
