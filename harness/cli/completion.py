"""`harness completion`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from harness.core.errors import Exit, SetupError

DOES = "print a shell's completion script"
EXAMPLE = 'eval "$(harness completion bash)"'


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"))


def run(options: argparse.Namespace) -> int:
    from harness.cli import parser

    try:
        import shtab
    except ModuleNotFoundError as error:
        raise SetupError(f"{error}; completion needs it: pip install shtab") from error
    top = parser()
    for action in _actions(top):
        if action.type is Path:
            folder = action.metavar == "DIR"
            action.complete = shtab.DIRECTORY if folder else shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(top, options.shell))
    return Exit.PASS


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from _actions(verb)
