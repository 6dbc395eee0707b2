"""The terminal: colours only for people, quiet when piped, versions and completion without a heavy import."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import VERBS, main
from harness.output import terminal
from harness.output.terminal import progress
from tests.conftest import ROOT, refusal
from tests.records.sample import stored


def in_terminal(command: list[str], **environment: str) -> str:
    """What a harness command prints to a real terminal, standard error included."""
    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", *command],
        stdout=theirs,
        stderr=theirs,
        cwd=ROOT,
        env=kept | {"TERM": "xterm", **environment},
    )
    os.close(theirs)
    said = b""
    try:
        while part := os.read(ours, 4096):
            said += part
    except OSError:  # Linux: the other end is closed
        pass
    process.wait()
    os.close(ours)
    return said.decode()


def test_verdicts_are_coloured_for_people_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Green on a terminal; plain when piped, and with NO_COLOR."""
    path = stored(tmp_path)
    assert "\x1b[1;32mPASS\x1b[0m" in in_terminal(["verdict", str(path)])
    assert "\x1b" not in in_terminal(["verdict", str(path)], NO_COLOR="1")
    main(["verdict", str(path)])
    piped = capsys.readouterr()
    assert "\x1b" not in piped.out
    assert piped.err == ""


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
