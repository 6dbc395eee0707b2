"""Shapes of files and messages: declared once, as types that validate when they decode and give the JSON Schema."""

from __future__ import annotations

import difflib
import inspect
import json
import math
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from enum import EnumType
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from harness.core.errors import SetupError
from harness.core.files import read_capped

MAX_JSON_BYTES = 64_000_000
MAX_TOML_BYTES = 1_000_000
DRAFT = "https://json-schema.org/draft/2020-12/schema"

T = TypeVar("T")

Share = Annotated[float, Meta(ge=0, le=1, description="a share, 0 to 1")]
Count = Annotated[int, Meta(ge=0)]
FileName = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z0-9_@+-][A-Za-z0-9_.@+-]{0,199}$(?!\n)", description="a plain file name without a folder"),
]


@typing.dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Shape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the shapes. A rule that a type cannot express goes into __post_init__, which raises ValueError."""


def read_json(path: Path, kind: type[T], expected: str, remedy: str = "") -> T:
    """The content of a JSON file, which an error calls `expected`. Raises SetupError."""
    return decode(read_capped(path, MAX_JSON_BYTES, expected), kind, str(path), remedy)


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file, for `convert`. Raises SetupError: no such file, not TOML."""
    try:
        return tomllib.loads(read_capped(path, MAX_TOML_BYTES, "a settings file").decode())
    except ValueError as error:
        raise SetupError(f"{path}: not valid TOML ({error})") from error
    except RecursionError as error:
        raise SetupError(f"{path}: nested too deeply") from error


def decode(content: bytes | str, kind: type[T], where: str, remedy: str = "") -> T:
    """A shape from JSON. Raises SetupError: one line with the key, what was received, what was expected, and the
    remedy."""
    try:
        return _decode(content, kind, where)
    except SetupError as error:
        if not remedy:
            raise
        raise SetupError(f"{error}; {remedy}") from error


def _decode(content: bytes | str, kind: type[T], where: str) -> T:
    try:
        _check_schema(content, kind, where)
        return msgspec.json.decode(content, type=kind, dec_hook=_path)
    except msgspec.ValidationError as error:
        try:
            value = json.loads(content)
        except (ValueError, RecursionError):
            raise SetupError(f"{where}: {error}") from error
        raise SetupError(_explained(error, value, kind, where)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SetupError(f"{where}: not valid JSON ({error})") from error
    except RecursionError as error:
        raise SetupError(f"{where}: nested too deeply") from error


def convert(table: Any, kind: type[T], where: str) -> T:
    """A shape from a table that was decoded already. Raises SetupError as `decode` does, and for NaN and infinity."""
    _check_finite(table, where)
    try:
        return msgspec.convert(table, kind, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise SetupError(_explained(error, table, kind, where)) from error


def encode(value: Any) -> bytes:
    """JSON for people to read. Raises ValueError: NaN or infinity."""
    return (json.dumps(to_builtins(value), indent=2, allow_nan=False) + "\n").encode()


def to_builtins(value: Any) -> Any:
    """Dictionaries, lists and plain values, as JSON has them."""
    return msgspec.to_builtins(value, enc_hook=str)


def json_schema(kind: Any, title: str) -> dict[str, Any]:
    """The JSON Schema of a shape, the same on every Python: docstrings lose their indentation only from 3.13 on."""
    schema = msgspec.json.schema(kind, schema_hook=lambda _: {"type": "string"})
    for definition in schema.get("$defs", {}).values():
        if "description" in definition:
            definition["description"] = inspect.cleandoc(definition["description"])
    return {"$schema": DRAFT, "title": title, **schema}


def check_name(name: str, known: Iterable[str], where: str, what: str) -> None:
    """Raise SetupError unless a name is known."""
    known = list(known)
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
    raise SetupError(f"{where}: unknown {what} {name!r}; {hint}")


class _Schema(msgspec.Struct):
    schema: str | None = None


def _check_schema(content: bytes | str, kind: Any, where: str) -> None:
    """msgspec accepts a shape whose tag is missing, and does not say which one was expected."""
    config = getattr(kind, "__struct_config__", None)
    if config and config.tag and (received := msgspec.json.decode(content, type=_Schema).schema) != config.tag:
        raise SetupError(f"{where}: schema {received!r}, expected {config.tag!r}")


def _path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str | Path):
        return Path(value)
    raise ValueError(f"Expected `{kind.__name__}`")


def _check_finite(value: Any, where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise SetupError(f"{where} = {value}: expected a finite number")
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, part in parts:
        _check_finite(part, f"{where}: {key}" if isinstance(key, str) else where)


def _explained(error: msgspec.ValidationError, value: Any, kind: Any, where: str) -> str:
    """What was wrong, in one line."""
    text, _, path = str(error).partition(" - at `$")
    key, value, kind = _locate(value, kind, path)
    at = f"{where}: {key}" if key else where
    if name := re.search("unknown field `(.*)`", text):
        known = [field.encode_name for field in msgspec.structs.fields(_bare(kind))]
        check_name(name[1], known, at, "key")
    if name := re.search("missing required field `(.*)`", text):
        return f"{at}: expected the key {name[1]!r}"
    if text.startswith(("Expected ", "Invalid ", "Number ")):
        return f"{at} = {_short(value)}: expected {_in_words(kind, text)}"
    return f"{at}: {text}"


def _locate(value: Any, kind: Any, path: str) -> tuple[str, Any, Any]:
    """Where an error's path leads: key, value and type. msgspec does not say at which key of a mapping: the first that
    fails."""
    shown: list[str] = []
    for name, index in re.findall(r"\.(\w+)|\[(\d+|\.\.\.)\]", path):
        kind = _bare(kind)
        if name:
            (kind,) = (field.type for field in msgspec.structs.fields(kind) if field.encode_name == name)
            shown, value = [*shown, name], value[name]
        elif index == "...":
            kind = typing.get_args(kind)[1]
            name, value = next((name, part) for name, part in value.items() if not _converts(part, kind))
            shown.append(str(name))
        else:
            parts = typing.get_args(kind)
            kind = parts[0] if parts[-1] in (..., parts[0]) else parts[int(index)]
            shown, value = [*shown[:-1], f"{shown[-1] if shown else ''}[{index}]"], value[int(index)]
    return ".".join(shown), value, kind


def _converts(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind, dec_hook=_path)
    except msgspec.ValidationError:
        return False
    return True


def _bare(kind: Any) -> Any:
    """A type without its constraints, and without None."""
    if typing.get_origin(kind) is Annotated:
        return _bare(typing.get_args(kind)[0])
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return _bare(next(part for part in typing.get_args(kind) if part is not type(None)))
    return kind


def _in_words(kind: Any, text: str) -> str:
    """What was expected. text: msgspec's message."""
    if typing.get_origin(kind) is Annotated:
        for constraint in kind.__metadata__:
            if isinstance(constraint, Meta) and constraint.description:
                return constraint.description
    kind = _bare(kind)
    origin = typing.get_origin(kind)
    if origin is typing.Literal or isinstance(kind, EnumType):
        return " or ".join(repr(choice) for choice in (typing.get_args(kind) or [str(choice) for choice in kind]))
    if origin is tuple and "=" not in text:
        parts = typing.get_args(kind)
        return "a list" if ... in parts else f"[{', '.join(_bare(part).__name__ for part in parts)}]"
    if kind is Path:
        return "a path"
    if issubclass(origin or kind, Mapping | Shape):
        return "a table of keys"
    return re.sub("^(Expected|Invalid) ", "", text.replace("`", "").replace("array", "a list")).partition(", got ")[0]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
