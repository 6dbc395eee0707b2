"""Exit codes, and the error for what a user can mend."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every command."""

    PASS = 0
    FAIL = 1
    SETUP = 2  # wrong usage, or something needed is missing or broken
    INCONCLUSIVE = 3
    INTERRUPTED = 130  # Ctrl-C


class SetupError(Exception):
    """The command cannot run: one line says what was received, what was expected and what to do."""


class AbsentError(SetupError):
    """A device or an accelerator that is not there."""


def nearest(word: str, known: Iterable[str]) -> str:
    """What to write instead of an unknown word: the nearest known one, or all of them."""
    import difflib  # takes a while

    known = list(known)
    near = difflib.get_close_matches(word.lower(), known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"expected {', '.join(known)}"
