"""Every command in the documents: those of the harness parse, name what there is, and, where cheap, are run."""

from __future__ import annotations

import argparse
import importlib.util
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import replace

from harness.cli import in_full, main, module, parser, paths
from harness.core.errors import SetupError
from harness.records import record
from tests.conftest import CALIBRATION, ROOT
from tests.records.sample import a_run, stored

DOCUMENTS = sorted({*ROOT.glob("*.md"), *ROOT.glob("*/*.md")})
PROGRAMS = ("harness", "python", "python3", "pytest", "tox")
CHEAP = ("verdict", "report", "release compare", "inspect", "evaluate")
MADE_ELSEWHERE = (
    "check.intoto.json",
    "fleet.toml",
    "key.pem",
    "key.pub.pem",
    "my",
    "old",
    "runs",
    "baseline",
    "my-policy.toml",
    "job.zip",
    "shapes.keras",  # docs/gated-release.md makes these; a test of its own runs that page
    "variants",
    "policy.toml",
    "key.pem",
    "key.pub.pem",
    "shapes.intoto.json",
)  # by the reader, or by a command before


@dataclass(frozen=True)
class Command:
    """One line of a code block."""

    where: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.where}: {shlex.join(self.words)}"


def commands() -> Iterator[Command]:
    """Of indented and fenced blocks; of several on a line, each."""
    for document in DOCUMENTS:
        where = document.relative_to(ROOT).as_posix()
        text = document.read_text().replace("\\\n", " ")
        for block in re.findall(r"^ {4,}\S.*$|(?<=^```sh\n)(?:.*\n)+?(?=```)|^ *- (?:run: )?harness.*$", text, re.M):
            for line in block.splitlines():
                line = re.sub(r"^\s*(\$ |- run: |- )?", "", line)
                for part in re.split(r" && | \| ", line):
                    try:
                        words = shlex.split(part, comments=True)
                    except ValueError:  # no shell: a drawing, a table
                        continue
                    words = words[: words.index(">")] if ">" in words else words
                    if words and words[0].split("/")[-1] in PROGRAMS:
                        yield Command(where, (words[0].split("/")[-1], *words[1:]))


def examples() -> Iterator[Command]:
    """What each verb's --help gives as an example."""
    for path in paths():
        for part in module(path).EXAMPLE.split(" && "):
            yield Command(f"harness {' '.join(path)} --help", tuple(shlex.split(part)))


COMMANDS = [*commands(), *examples()]
HARNESS = [command for command in COMMANDS if command.words[0] == "harness"]


def parsed(command: Command) -> argparse.Namespace:
    """Its options; fails if a verb or a flag does not exist. `verb` is empty if it only prints something."""
    words = [word for word in command.words[1:] if not re.fullmatch(r"\[.*|.*\]|\.\.\.", word)]
    try:
        options, unknown = parser().parse_known_args(in_full(words))
    except SystemExit:  # --version and the like; wrong usage raises SetupError
        return argparse.Namespace(verb="")
    except SetupError as error:
        pytest.fail(f"{command}: {error}")
    assert not unknown, command
    options.verb = options.parser.prog.removeprefix("harness ")
    return options


def test_there_are_commands() -> None:
    """The search finds what a reader sees."""
    assert len(HARNESS) > 30
    assert {"check", "convert", "report"} <= {parsed(command).verb for command in HARNESS}


@pytest.mark.parametrize("command", HARNESS, ids=str)
def test_a_harness_command_parses_and_its_files_exist(command: Command) -> None:
    """Verb, flags and files; names in capitals stand for the reader's own."""
    options = vars(parsed(command))
    for name, value in options.items():
        for path in value if isinstance(value, list) else [value]:
            if not isinstance(path, Path) or name in ("out", "html", "json", "markdown", "junit"):
                continue
            first = path.parts[0]
            if first in MADE_ELSEWHERE or first.isupper() or path.stem.isupper() or first.startswith("my"):
                continue
            if path.parts[:2] == ("models", "tflite"):  # made by harness convert
                continue
            assert (ROOT / path).exists(), f"{command}: {path} does not exist"


@pytest.mark.parametrize("command", [one for one in COMMANDS if one.words[0] != "harness"], ids=str)
def test_other_commands_name_what_exists(command: Command) -> None:
    """Modules, tox environments and settings files."""
    words = command.words
    if words[0] == "tox" and "-e" in words:
        known = re.findall(r"^\[testenv:(\w+)\]", (ROOT / "tox.ini").read_text(), re.M)
        assert set(words[words.index("-e") + 1].split(",")) <= set(known), str(command)
    if words[1:2] == ("-m",) and words[2] != "venv":
        assert importlib.util.find_spec(words[2]), str(command)
    for word in words[1:]:
        if word.endswith((".toml", ".py", ".keras")) and not word.startswith(("my", "-")) and "/" in word:
            assert (ROOT / word).exists() or word.startswith("old/"), f"{command}: {word} does not exist"


@pytest.fixture(scope="session")
def sandbox(tiny_model: Path, tiny_variants: Path, few_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like the repository after fine-tuning and `harness check`, on the tiny model."""
    folder = tmp_path_factory.mktemp("sandbox")
    (folder / "data").mkdir()
    (folder / "data" / "test").symlink_to(few_images)
    (folder / "data" / "calibration").symlink_to(CALIBRATION)
    (folder / "models").mkdir()
    shutil.copy(tiny_model, folder / "models" / "resnet164.keras")
    shutil.copytree(tiny_variants, folder / "models" / "tflite")
    for place in ("runs", "baseline"):
        (folder / place).mkdir()
        stored(folder / place)
    shutil.copy(tiny_model, folder / "runs" / "finetuned.keras")
    shutil.copytree(tiny_variants, folder / "runs" / "finetuned")
    for name in ("pi", "server"):
        run = a_run()
        record.write(replace(run, device=replace(run.device, name=name)), folder / "runs" / f"{name}.json")
    return folder


def cheap() -> list[Command]:
    found: dict[tuple[str, ...], Command] = {}
    for command in HARNESS:
        if parsed(command).verb in CHEAP and not any(
            Path(word).stem.isupper() or ".toml" in word for word in command.words[1:]
        ):
            found.setdefault(command.words, command)
    return list(found.values())


@pytest.mark.parametrize("command", cheap(), ids=str)
def test_a_cheap_command_runs(command: Command, sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a reader would type it, with exit code 0: the sandbox's records PASS."""
    monkeypatch.chdir(sandbox)
    assert main(list(command.words[1:])) == 0
