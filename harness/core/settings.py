"""Typed settings files (TOML): unknown keys, wrong types and numbers that are none are refused."""

from __future__ import annotations

import difflib
import math
import tomllib
import types
import typing
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from harness.core.errors import SetupError

T = TypeVar("T")


def read(path: Path) -> dict[str, Any]:
    """A TOML file's content. Raises SetupError: no such file, not TOML."""
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise SetupError(f"{path}: expected a settings file; {error.strerror}") from error
    except ValueError as error:
        raise SetupError(f"{path}: not valid TOML ({error})") from error


def build(kind: type[T], table: dict[str, Any], where: str) -> T:
    """A dataclass of a table; keys left out keep its defaults. Raises SetupError, naming the nearest valid key."""
    hints = typing.get_type_hints(kind)
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for key in table:
        check_name(key, known, where, "key")
    return kind(**{key: _convert(value, hints[key], f"{where}: {key}") for key, value in table.items()})


def check_name(name: str, known: Iterable[str], where: str, what: str) -> None:
    """Raise SetupError unless a name is known."""
    known = list(known)
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
    raise SetupError(f"{where}: unknown {what} {name!r}; {hint}")


def _convert(value: Any, hint: Any, where: str) -> Any:
    if isinstance(hint, types.UnionType):
        (hint,) = (one for one in typing.get_args(hint) if one is not types.NoneType)
    if is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, dict):
            return build(hint, value, where)
    elif typing.get_origin(hint) is typing.Literal:
        if value in typing.get_args(hint):
            return value
        raise SetupError(f"{where} = {value!r}: expected {' or '.join(map(repr, typing.get_args(hint)))}")
    elif typing.get_origin(hint) is tuple:
        kinds = typing.get_args(hint)
        if isinstance(value, list):
            kinds = kinds[:1] * len(value) if kinds[-1] is Ellipsis else kinds
            if len(kinds) == len(value):
                return tuple(_convert(one, kind, where) for one, kind in zip(value, kinds, strict=True))
    elif hint is Path:
        if isinstance(value, str):
            return Path(value)
    elif hint is float:
        if _is_number(value):
            return float(value)
    elif type(value) is hint:
        return value
    raise SetupError(f"{where} = {value!r}: expected {_in_words(hint)}")


def _in_words(hint: Any) -> str:
    if typing.get_origin(hint) is not tuple:
        return str(getattr(hint, "__name__", hint))
    return f"[{', '.join('...' if kind is Ellipsis else kind.__name__ for kind in typing.get_args(hint))}]"


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
