"""The command line: verbs in groups, flags described once, wrong usage answered in one line."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import GROUPS, SECOND_LEVEL, SHORT, VERBS, main, parser, paths
from harness.core.errors import SetupError
from tests.conftest import ROOT, refusal

ALL = [" ".join(path) for path in paths()]
DEFAULTS_OF_THEIR_OWN = (
    ("convert", "--data"),  # is only used if it exists
    ("explain", "--out"),
    ("check", "--json"),
    ("release attest", "--out"),  # a file
    ("release verify-attestation", "--accelerator"),  # all by default
    ("explain", "--accelerator"),  # takes one, `check` and `convert` several
    ("check", "--runtime"),  # takes one, which replaces this machine's; elsewhere others are tried beside it
    ("lab worker", "--device"),
)


def flags_of(path: str) -> dict[str, argparse.Action]:
    """A verb's flags by name."""
    found: argparse.ArgumentParser = parser()
    for word in path.split():
        (verbs,) = (action for action in found._actions if isinstance(action, argparse._SubParsersAction))
        found = verbs.choices[word]
    return {name: action for action in found._actions for name in action.option_strings if name.startswith("--")}


def test_help_shows_at_most_twelve_verbs_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    """Every verb on a line below its group, and the exit codes."""
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    shown = capsys.readouterr().out
    assert len(VERBS) <= 12
    assert all(f"\n{group}\n" in shown for group in GROUPS)
    assert all(f"\n  {verb} " in shown for verb in VERBS)
    assert "2 usage or set-up error" in shown
    assert max(map(len, shown.splitlines())) <= 88


def test_help_imports_nothing_heavy() -> None:
    """argparse alone: `harness --help` must take less than 8 times as long as `python -c pass`."""
    code = "import sys; sys.argv = ['harness', '--help']\nfrom harness.cli import main\ntry: main()\n"
    code += "finally: print({'numpy', 'rich', 'tabulate', 'msgspec', 'shtab', 'click', 'difflib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("set()")


@pytest.mark.parametrize("path", ALL)
def test_every_verb_has_help_with_an_example(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    """And says what it does, in the words of the overview."""
    with pytest.raises(SystemExit, match="0"):
        main([*path.split(), "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    first, *rest = path.split()
    does = SECOND_LEVEL[first][rest[0]] if rest else VERBS[first]
    assert f"{does[0].upper()}{does[1:]}." in shown
    short = [name for name, full in SHORT.items() if full == (first, *rest)]
    assert any(f"example: harness {words}" in shown for words in (path, *short))
    assert "exit codes: 0 PASS" in shown


def test_flags_that_mean_the_same_are_the_same_everywhere() -> None:
    """One type and one default for each name, whatever the verb."""
    seen: dict[str, tuple[object, ...]] = {}
    for path in ALL:
        for name, action in flags_of(path).items():
            default = action.default
            if (path, name) in DEFAULTS_OF_THEIR_OWN:
                continue
            kind = type(action), action.type, action.metavar, default
            if getattr(action.type, "__name__", "") == "convert":  # made by flags.count
                kind = type(action), "count", action.metavar, default
            assert seen.setdefault(name, kind) == kind, f"{path} {name}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("chek", "harness: unknown verb 'chek'; did you mean 'check'?"),
        ("device lst", "harness device: unknown verb 'lst'; did you mean 'list'?"),
        ("check --modles x", "harness check: unknown flag '--modles'; did you mean '--models'?"),
        ("device virtual fone", "harness device virtual: unknown kind 'fone'; did you mean 'phone'?"),
        ("check --thread 2", "harness check: unknown flag '--thread'; did you mean '--threads'?"),
        ("verdict", "harness verdict: the following arguments are required: RUN"),
        ("verdict one two", "harness verdict: unexpected 'two'"),
        ("device", "harness device: expected a verb: list, doctor, virtual, pack, clean, benchmark"),
        ("", "harness: expected a verb: convert, inspect,"),
        ("check --shards 0", "harness check: --shards 0: expected a whole number, at least 1"),
        ("check --cooldown nan", "harness check: --cooldown nan: expected seconds, at least 0"),
        ("check --models", "harness check: --models: expected one argument"),
        ("check --accelerator cpu,gqu", "harness check: --accelerator gqu: unknown; did you mean 'gpu'?"),
        ("explain int8 --time --html x.html", "harness explain: --html: not allowed with argument --time"),
    ],
)
def test_wrong_usage_is_one_line_with_the_nearest_name(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2; no usage text, no traceback."""
    assert refusal(capsys, main(words.split())).startswith(said)


def test_a_set_up_error_names_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole verb, also of two words."""
    said = refusal(capsys, main(["lab", "check", str(tmp_path / "none.toml")]))
    assert said.startswith("harness lab check: ")


def test_a_parser_of_one_verb_refuses_nothing_that_the_whole_one_knows() -> None:
    """Flags are loaded for the named verb only; the result is the same."""
    words = ["report", "run.json", "--html", "x.html"]
    lazy, whole = (vars(made.parse_known_args(words)[0]) for made in (parser("report"), parser()))
    assert {**lazy, "parser": None} == {**whole, "parser": None}
    with pytest.raises(SetupError, match="unknown verb"):
        parser("report").parse_args(["reprot"])
