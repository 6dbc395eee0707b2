"""The terminal: colours only for people, quiet when piped, versions and completion without a heavy import."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyte
import pytest
from msgspec.structs import replace

from harness.cli import VERBS, main
from harness.output import terminal
from harness.output.formats import figures
from harness.output.terminal import progress
from harness.run.job import Ran
from tests.conftest import ROOT, refusal
from tests.records.sample import a_run, stored


def in_terminal(command: list[str], columns: int = 80, **environment: str) -> bytes:
    """What a Python command prints to a real terminal, standard error included."""
    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=theirs,
        stderr=theirs,
        cwd=ROOT,
        env=kept | {"TERM": "xterm", "COLUMNS": str(columns), "LINES": "50", **environment},
    )
    os.close(theirs)
    printed = b""
    try:
        while part := os.read(ours, 4096):
            printed += part
    except OSError:  # Linux: the other end is closed
        pass
    process.wait()
    os.close(ours)
    return printed


def lines_of(printed: bytes) -> list[str]:
    """Without colours."""
    return re.sub(r"\x1b\[[\d;]*m", "", printed.decode()).replace("\r", "").split("\n")


def test_verdicts_are_coloured_for_people_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Green on a terminal; plain when piped, and with NO_COLOR."""
    path = stored(tmp_path)
    command = ["-m", "harness", "verdict", str(path)]
    assert b"\x1b[1;32mPASS\x1b[0m" in in_terminal(command)
    assert b"\x1b" not in in_terminal(command, NO_COLOR="1")
    assert b"\x1b" not in in_terminal(command, TERM="dumb")
    main(["verdict", str(path)])
    piped = capsys.readouterr()
    assert "\x1b" not in piped.out
    assert piped.err == ""


@pytest.mark.parametrize("columns", [60, 80])
def test_no_line_is_wider_than_the_terminal(columns: int, tmp_path: Path) -> None:
    """Tables turn into paragraphs, sentences break between words, no figure is left out; piped, nothing is broken."""
    path = stored(tmp_path, broken=60)
    piped = subprocess.run(
        [sys.executable, "-m", "harness", "report", str(path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for flags in ([], ["--flips"]):
        lines = lines_of(in_terminal(["-m", "harness", "report", str(path), *flags], columns))
        assert max(map(len, lines)) <= columns
    shown = "\n".join(lines_of(in_terminal(["-m", "harness", "report", str(path)], columns)))
    words, expected = (set(re.findall(r"[\w.%]{2,}", text)) for text in (shown, piped.stdout))
    assert words == expected


def test_several_accelerators_stand_across(tmp_path: Path) -> None:
    """Variants down, accelerators across; the worst outcome last; figures of each accelerator below; what ran named."""
    run = a_run()
    arrays = {
        f"{variant}@gpu.{name}": run.arrays.stored[f"{variant}.{name}"]
        for variant in ("float32", "int8")
        for name in ("outputs", "scale", "zero_point")
    }
    arrays["int8@gpu.outputs"] = np.roll(arrays["int8@gpu.outputs"], 1, axis=1)
    run = a_run(arrays)
    ran = Ran("gpu", "a runtime", adapter="an adapter", software=True, operations=9, taken=8, not_taken=("PACK",))
    run = replace(run, cells=tuple(replace(cell, ran=ran) for cell in run.cells))
    lines = terminal.table(run).splitlines()
    assert lines[0].split() == ["variant", "cpu", "gpu"]
    assert lines[2].split() == ["float32", "PASS", "0", "flips", "PASS", "0", "flips"]
    assert lines[3].split() == ["int8", "PASS", "1", "flips", "FAIL", "2200", "flips"]
    assert lines[-1] == "verdict: FAIL"
    assert [line for line in lines if line.startswith("on ")] == ["on cpu", "on gpu"]
    assert "  ran on a runtime, an adapter, in software (its answers count, its time is not measured), " in "\n".join(
        lines
    )
    assert "8 of 9 operations (not PACK)" in "\n".join(lines)


TWO_DEVICES = """
from harness.output.terminal.progress import Bars, step
with Bars() as bars:
    with step("reference: a model"):
        first, second = (bars.for_device(uri) for uri in ("ssh://pi", "adb://phone"))
        for number in range(40):
            first("int8", number, 40)
            second("float32" if number < 20 else "int8", number % 20, 20)
            time.sleep(0.02)
print("the result")
"""


def test_each_device_has_one_bar() -> None:
    """At any moment; at the end nothing is left of them but the step and its seconds."""
    printed = in_terminal(["-c", f"import time{TWO_DEVICES}"])
    screen = pyte.Screen(80, 50)
    stream = pyte.ByteStream(screen)
    seen = set()
    for start in range(0, len(printed), 200):
        stream.feed(printed[start : start + 200])
        for device in ("ssh://pi", "adb://phone"):
            bars = [line for line in screen.display if line.startswith(f"  {device}: ")]
            assert len(bars) <= 1
            seen |= {" ".join(line.split()[:2]) for line in bars}
    assert {"ssh://pi: int8", "adb://phone: float32", "adb://phone: int8"} <= seen
    left = [line.rstrip() for line in screen.display if line.strip()]
    assert left[-1] == "the result"
    assert [re.sub(r"[\d.]+ s$", "N s", line) for line in left[:-1]] == ["  reference: a model: N s"]


def test_nothing_is_imported_to_print_that_is_not_printed() -> None:
    """Piped, tables need no rich and progress none either."""
    code = "from harness.output import terminal\nfrom harness.output.terminal.style import grid\n"
    code += "with terminal.Bars() as bars, terminal.step('a'): bars('a', 1, 2)\n"
    code += "print(grid([('a', 'b')], ('c', 'd')))\nimport sys; print({'rich', 'tqdm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [(0, "0 B"), (812, "812 B"), (3420, "3.42 KB"), (20480, "20.5 KB"), (999_600, "1 MB"), (1_786_240, "1.79 MB")],
)
def test_sizes_are_shown_in_the_unit_that_fits(size_bytes: int, shown: str) -> None:
    """Small models are not "0.00 MB"."""
    assert figures.size(size_bytes) == shown


def test_short_times_are_shown_in_microseconds() -> None:
    """A small model takes 12 of them."""
    assert figures.duration(12.3e-6) == "12.3 µs"
    assert figures.duration(3.72e-3) == "3.72 ms"
    assert figures.duration(None) == "-"


def test_steps_are_said_on_a_terminal_and_when_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Piped: nothing; with --verbose a line when the step is done."""
    with terminal.step("a step"):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "verbose", True)
    with terminal.step("a step"):
        pass
    assert capsys.readouterr().err == "  a step: 0.0 s\n"


def test_verbose_says_where_an_error_comes_from(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The one line last, before it the traceback; without the flag the line alone."""
    monkeypatch.setattr(progress, "verbose", False)
    refusal(capsys, main(["verdict", str(tmp_path / "no.json")]))
    assert main(["verdict", str(tmp_path / "no.json"), "--verbose"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert said.splitlines()[-1].startswith("harness verdict: ")


def test_the_version_names_runtimes_without_loading_them() -> None:
    """LiteRT, NumPy and TensorFlow with their versions, by metadata alone."""
    code = "import sys; sys.argv = ['harness', '--version']\nfrom harness.cli import main\ntry: main()\n"
    code += "finally: print({'numpy', 'tensorflow', 'ai_edge_litert'} & set(sys.modules) or 'light')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    for package in ("harness ", "ai-edge-litert ", "numpy ", "keras "):
        assert package in done.stdout
    assert done.stdout.rstrip().endswith("light")


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_every_verb(shell: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The script names all verbs and their flags; bash finds no mistake in it."""
    with pytest.raises(SystemExit, match="0"):
        main(["--completion", shell])
    script = capsys.readouterr().out
    assert all(verb in script for verb in VERBS)
    assert "html" in script
    if shell == "bash":
        (tmp_path / "completion").write_text(script)
        subprocess.run(["bash", "-n", tmp_path / "completion"], check=True)
