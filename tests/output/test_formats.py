"""Stored runs in every shape: page, Markdown, JUnit, JSON; one device or several."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from msgspec.structs import replace

from harness.cli import main
from harness.core.errors import SetupError
from harness.core.outcome import Outcome, Verdict
from harness.output.formats import figures, json_report, junit, markdown, runs, schema, words
from harness.output.report import check
from harness.output.terminal import table
from harness.records import record
from harness.records.arrays import RecordArrays
from harness.records.record import Record
from harness.run import worker
from harness.run.latency_plan import LatencyPlan, Mode
from harness.timing import verdict
from harness.timing.figures import Bucket, Latency, OverTime
from tests.conftest import refusal
from tests.output.browser import look
from tests.output.test_report import Tags
from tests.records.sample import a_run, silent, stored, with_arrays

SECONDS = {"control": 0.004, "float32": 0.004, "int8": 0.002}


def timed(run: Record, *, gated: bool = False, outcome: Outcome | None = None) -> Record:
    """The same run with latency from two processes: int8 twice as fast as float32, the temperature known."""
    arrays = dict(run.arrays.stored)
    for process in (1, 2):
        rng = np.random.default_rng(process)
        kinds = [worker.CONTROL, "float32", "int8"]
        order = np.array([0, 1, 2, 2, 1, 0] * 6)
        state = np.full((len(order), 3, len(worker.STATE)), np.nan)
        state[:, :, worker.STATE.index("clock_s")] = np.arange(len(order))[:, np.newaxis]
        state[:, :, worker.STATE.index("temperature_c")] = 50 + np.arange(len(order))[:, np.newaxis] / 10
        made: dict[str, Any] = {"kinds": np.array(kinds), "order": order, "state": state, "control": "float32"}
        made |= {"cores": np.array([0]), "governor": np.array("unavailable"), "memory": np.array([3e6 - process, 2e6])}
        for kind, seconds in zip(kinds, SECONDS.values(), strict=True):
            samples = seconds * rng.uniform(0.99, 1.02, (12, 20))
            made |= {f"{kind}.samples": samples, f"{kind}.warmup": samples[0], f"{kind}.settled": np.array(True)}
            made |= {f"{kind}.load": np.array(0.01), f"{kind}.first": np.array(0.005)}
        arrays |= {f"latency.{process}.{name}": np.asarray(array) for name, array in made.items()}
    found = RecordArrays(arrays).latency_runs()
    times = verdict.figures(found)
    timing = replace(verdict.judge(found, {"steady": times}, 1), gated=gated)
    if outcome:
        timing = replace(timing, verdict=Verdict(outcome, ("as asked",)))
    cells = tuple(replace(cell, latency=times[cell.name]) for cell in run.cells)
    return replace(run, arrays=RecordArrays(arrays), cells=cells, timing=timing, plan=LatencyPlan())


def in_all_modes(run: Record) -> Record:
    """With a sustained run that slowed down in its third minute, a paced one and cold starts."""
    buckets = tuple(
        Bucket(60.0 * n, level, level, 1.2 * level, 0.99, 50.0 + n, 2.4e9 - n * 1e8, n > 1)
        for n, level in enumerate((2e-3, 2e-3, 3e-3, 3e-3))
    )
    paced = Latency(4e-3, None, 5e-3, None, None, None, 0.01, 0.02, 64, 4)
    sustained = replace(paced, over_time=OverTime(60.0, buckets, 120.0, 1.5, 120.0))
    cold = replace(paced, median=0.03, p90=None, remarks=("its file stayed in memory in 4 of 4 starts",))
    modes: dict[Mode, Latency] = {"sustained": sustained, "paced": paced, "cold": cold}
    plan = LatencyPlan(sustain_s=240, pace_s=0.5, cold_starts=4)
    return replace(run, plan=plan, cells=tuple(replace(cell, latency_modes=modes) for cell in run.cells))


def test_the_other_modes_are_told_in_a_sentence_each() -> None:
    """The first minute, the plateau and when it began, heat, frequency, throttling; the pause; where the file was."""
    lines = list(words.modes(in_all_modes(timed(a_run()))))
    assert lines[0] == (
        "float32 sustained for 4 min: 2.00 ms in the first minute, 3.00 ms (1.50 times) on the plateau, from 2 min on; "
        "50 to 53 °C; 2.1 to 2.4 GHz; throttled from 2 min on"
    )
    assert "int8 paced, one inference after 500 ms of rest: 4.00 ms, p90 5.00 ms; " in "\n".join(lines)
    assert lines[-1].endswith("first inference 20.00 ms; its file stayed in memory in 4 of 4 starts")


def on(name: str, run: Record) -> Record:
    return replace(run, device=replace(run.device, name=name))


def two_devices() -> runs.Runs:
    """A desk where all is well, and a phone whose int8 breaks answers, and on which nothing was timed."""
    return runs.side_by_side([on("desk", timed(a_run())), on("phone <b>", a_run(broken=60))])


def test_speed_is_told_as_times_as_fast_with_its_interval() -> None:
    """Half the time of float32 is 2.00x, its interval around it; without a ratio there is a dash."""
    run = timed(a_run())
    found = figures.cell_figures(run.cells[1], run)
    low, high = map(float, found.speedup_interval.split(" to "))
    assert low < 2 < high
    assert found.speedup == "2.00x"
    assert figures.cell_figures(run.cells[0], run).speedup == "-"
    assert figures.cell_figures(a_run().cells[1], a_run()).median == "-"
    assert "2.00x" in table(run)


def test_the_page_of_a_check_comes_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--html writes one file with the verdict, its reasons, every variant and every changed image."""
    path, page = stored(tmp_path, broken=60), tmp_path / "sub" / "check.html"
    assert main(["report", str(path), "--html", str(page)]) == 0
    assert f"written: {page}" in capsys.readouterr().out
    text = page.read_text()
    assert text.startswith("<!doctype html>")
    assert "int8 does not answer like the Keras model (2,200 images" in text
    assert "accuracy drop 2.73 points" in text
    assert "harness explain int8" in text
    assert text.count("data:image/png;base64,") == 60
    assert "No latency was measured." in text


def test_the_page_tells_of_time_and_of_the_device() -> None:
    """Speed-up, the distribution, blocks over time, the temperature; what could not be read is unavailable."""
    text = check.render(runs.side_by_side([timed(a_run())]))
    assert "2.00x" in text
    assert "Distribution of the time of one inference. float32 median 4.0" in text
    assert "int8&#39;s blocks took 0.9" in text
    assert "50 to 53.5" in text
    assert "<dt>unavailable</dt><dd>frequency, " in text


def test_the_page_needs_nothing_else_and_every_picture_has_a_text() -> None:
    """No script, no link, no address; each picture in two colourings and described; no page beyond 2 MB."""
    text = check.render(two_devices())
    assert len(text.encode()) < 2_000_000
    tags = Tags(text).tags
    assert not {"script", "link", "iframe", "b>"} & {tag for tag, _ in tags}
    pictures = [attributes for tag, attributes in tags if tag == "img"]
    assert len(pictures) > 60
    assert all(picture["alt"] for picture in pictures)
    sources = [a.get("src") or a.get("srcset") or "" for tag, a in tags if tag in ("img", "source")]
    assert all(source.startswith("data:image/") for source in sources)


@pytest.mark.slow
def test_a_page_of_noise_stays_small() -> None:
    """Large coloured flips that compress badly, on four devices: under 2 MB, and what is left out is said."""
    run = a_run(broken=500)
    pixels = np.random.default_rng(0).integers(0, 256, (500, 96, 96, 3), dtype=np.uint8)
    run = with_arrays(run, {"flipped.images": pixels})
    text = check.render(runs.side_by_side([on(f"device {i}", run) for i in range(4)]))
    assert len(text.encode()) < 2_000_000
    assert "40 of them, the surest answers first" in text


def test_a_page_without_a_change_or_an_answer_says_so() -> None:
    """Nothing broken: no gallery. A variant that crashed: its reason, dashes, and no figure fails."""
    run = a_run(broken=0)
    assert "No variant changed a prediction." in check.render(runs.side_by_side([run]))
    crashed = replace(run, cells=(*run.cells, silent()), outcome=Outcome.FAIL)
    text = check.render(runs.side_by_side([crashed]))
    assert "exit code -11" in text
    kept = {name: array for name, array in run.arrays.stored.items() if "." not in name or name.startswith("flip")}
    alone = replace(run, cells=(silent(),), arrays=RecordArrays(kept), outcome=Outcome.FAIL)
    assert "exit code -11" in check.render(runs.side_by_side([alone]))


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_its_window(width: int, tmp_path: Path) -> None:
    """A phone and a desktop, two devices of long names: as wide as the window, pictures load, the console is empty."""
    phone = on("phone", a_run(broken=60))
    both = runs.side_by_side([in_all_modes(on("desk", timed(a_run()))), phone])
    long = dataclasses.replace(both, devices=("a-device-of-a-long-name-" * 3, "another device with a long name " * 3))
    seen = look(check.render(long), width, tmp_path)
    assert seen.width <= width
    assert seen.loaded == seen.pictures > 60
    assert not seen.console


def test_markdown_has_the_verdict_first_and_escapes_names() -> None:
    """A heading with the outcome, a row for each variant and device, reasons only of what did not pass."""
    lines = markdown.render(two_devices()).splitlines()
    assert lines[0].endswith("FAIL: a.keras")
    rows = [line for line in lines if line.startswith("| **")]
    assert len(rows) == 4
    reasons = [line for line in lines if line.startswith("- ") and ": ship " not in line]
    assert len(reasons) == 1
    assert "**int8** on phone \\<b\\>: accuracy drop" in reasons[0]
    alone = markdown.render(runs.side_by_side([a_run()]))
    assert "device" not in alone.splitlines()[4]


def test_junit_has_a_case_for_each_variant_device_and_check() -> None:
    """FAIL is a failure, INCONCLUSIVE an error, the counts are theirs; a variant that never answered has one case."""
    root = ElementTree.fromstring(junit.render(two_devices()).encode())
    assert [suite.get("name") for suite in root] == ["desk", "phone <b>"]
    cases = {(case.get("classname"), case.get("name")): case for case in root.iter("testcase")}
    assert len(cases) == 2 * 2 * 7
    failed = {key for key, case in cases.items() if case.find("failure") is not None}
    assert ("phone <b>.int8", "max_accuracy_drop") in failed
    assert {device.split(".")[0] for device, _ in failed if device} == {"phone <b>"}
    assert root.get("failures") == str(len(failed))
    undecided = replace(a_run(broken=12), cells=(silent(why="a \x00 byte"), a_run(broken=12).cells[1]))
    root = ElementTree.fromstring(junit.render(runs.side_by_side([undecided])).encode())
    assert [case.get("name") for case in root.iter("testcase") if case.get("classname", "").endswith("range")] == [
        "answers"
    ]
    assert int(root.get("errors", "0")) > 0


def test_latency_is_a_case_only_where_it_is_limited() -> None:
    """A figure that nobody limits fails no build."""
    slow = timed(a_run(), outcome=Outcome.FAIL)
    assert 'name="latency"' not in junit.render(runs.side_by_side([slow]))
    limited = timed(a_run(), gated=True, outcome=Outcome.FAIL)
    assert ElementTree.fromstring(junit.render(runs.side_by_side([limited])).encode()).get("failures") == "1"


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((schema.FOLDER / name).read_text()))


def test_the_published_schemas_are_those_of_the_code() -> None:
    """python -m harness.output.formats.schema was run after the last change."""
    published = {file.name: file.read_bytes() for file in schema.FOLDER.glob("*.json")}
    assert published == schema.encoded()
    for name in published:
        Draft202012Validator.check_schema(json.loads(published[name]))


@pytest.mark.parametrize("make", [a_run, lambda: timed(a_run(broken=60)), lambda: replace(a_run(), cells=(silent(),))])
def test_what_is_written_fits_the_schemas(make: Callable[[], Record], tmp_path: Path) -> None:
    """A record, with and without latency and answers, and the report of it; a key too many does not fit."""
    run = make()
    record.write(run, tmp_path / "check.json")
    written = json.loads((tmp_path / "check.json").read_text())
    validator("record.json").validate(written)
    validator("report.json").validate(json.loads(json_report.render(runs.side_by_side([run]))))
    assert not validator("record.json").is_valid(written | {"surprise": 1})
    written["cells"][0]["size_bytes"] = "large"
    assert not validator("record.json").is_valid(written)


def test_every_shape_comes_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a folder too, whose further devices are found; exit code 0 whatever the verdict."""
    stored(tmp_path, broken=60)
    record.write(on("phone", a_run()), tmp_path / "check.phone.json")
    assert main(["report", str(tmp_path)]) == 0
    assert "verdict of 2 devices: FAIL" in capsys.readouterr().out
    for flag, start in (("--markdown", "## "), ("--junit", "<?xml")):
        assert main(["report", str(tmp_path), flag, "-"]) == 0
        assert capsys.readouterr().out.startswith(start)
    assert main(["report", str(tmp_path), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "FAIL"


def test_runs_that_cannot_stand_side_by_side_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other images, another model, the same run twice, no run at all: one line and exit code 2."""
    for what in ("model", "data"):
        other = replace(a_run(), **{what: replace(getattr(a_run(), what), sha256="another")})
        with pytest.raises(SetupError, match="cannot be shown side by side"):
            runs.side_by_side([a_run(), other])
    path = stored(tmp_path)
    assert "named twice" in refusal(capsys, main(["report", str(path), str(path)]))
    (tmp_path / "empty").mkdir()
    assert "expected a record" in refusal(capsys, main(["report", str(tmp_path / "empty")]))
