"""Slices of a set: which part of it each image belongs to, by a column of a table or by a pattern on names."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.core import shapes
from harness.core.errors import SetupError
from harness.images import parquet, tables
from harness.images.shards import Source
from harness.images.tensors import Tensors

REST = "(none)"  # the slice of the images for which nothing says any
MAX_SLICES = 500
MAX_LENGTH = 100  # of a slice's name
MATCH_S = 20.0  # that a pattern may take for all names
_MATCH = """
import json, re, sys
pattern, names = json.load(sys.stdin)
matches = map(re.compile(pattern).search, names)
json.dump([match[GROUP] if match else None for match in matches], sys.stdout)
"""


@dataclass(frozen=True)
class Slices:
    """by: the column's name, or that of the pattern's group. of_image: by the image's name. notes: for a person."""

    by: str
    of_image: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def of_names(self, names: Sequence[str]) -> npt.NDArray[np.str_]:
        """The slice of each image [N]."""
        return np.array([self.of_image[name] for name in names], np.str_)


def divide(source: Source, by: str, table: Path | None = None) -> Slices:
    """The slices of a set. by: a column, or a regular expression with one named group, which is searched for in each
    image's name. table: if it is not the set's own.

    Raises SetupError: no such column or table, no valid pattern, one that takes too long, no image in any slice, more
    than MAX_SLICES.
    """
    names, notes = list(source.names()), []
    if isinstance(source, Tensors) and "(?P<" not in by and table is None:
        shapes.check_name(by, source.columns, str(source.path), "column")
        where, texts = f"{source.path}: column {by}", source.column(by)
    elif "(?P<" in by:
        where, by, texts = f"--slice-by {by}", *_matched(by, names)
    else:
        path = table or _own_table(source, by)
        where, column = f"{path}: column {by}", _column(source, path, by)
        texts = [column.get(name, "") for name in names]
        if others := len(column.keys() - set(names)):
            notes.append(f"{path}: {others} of its {len(column)} rows are of images that the set does not have")
        if column and others == len(column):
            first = next(iter(column))
            raise SetupError(f"{path}: names none of the images; it has {first!r}, the first image is {names[0]!r}")
    of_image = {name: _name(text, where) for name, text in zip(names, texts, strict=True)}
    if not any(texts):
        raise SetupError(f"{where}: puts none of {len(names)} images into a slice, such as {names[0]!r}")
    if (count := len(set(of_image.values()))) > MAX_SLICES:
        raise SetupError(f"{where}: {count:,} different slices; expected at most {MAX_SLICES}, of many images each")
    if rest := texts.count(""):
        notes.append(f"{rest} of {len(names)} images have no {by}: they are judged as the slice {REST}")
    return Slices(by, of_image, tuple(notes))


def _name(text: str, where: str) -> str:
    if len(text) > MAX_LENGTH:
        raise SetupError(f"{where}: {text[:30]!r}... has {len(text)} characters; expected at most {MAX_LENGTH}")
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text) or REST


def _own_table(source: Source, by: str) -> Path:
    if path := tables.beside(source.path):
        return path
    if parquet.files(source.path):
        return source.path
    raise SetupError(
        f"--slice-by {by}: expected a column of a table, {source.path / tables.USUAL[0]} or --table FILE; or a pattern "
        "on names with a named group, such as '(?P<phone>pixel|moto)_'"
    )


def _column(source: Source, path: Path, by: str) -> Mapping[str, str]:
    """The text of each image, by its name."""
    if path == source.path and (own := parquet.files(path)):
        return {name: text.strip() for name, text in parquet.column(own, by)}
    return {name: text for name, (text,) in tables.read(path, (by,)).items()}


def _matched(pattern: str, names: Sequence[str], limit_s: float = MATCH_S) -> tuple[str, list[str]]:
    """The name of a pattern's group, and what it matches in each name; empty where it does not.

    In a process of its own: some patterns take years.
    """
    try:
        groups = list(re.compile(pattern).groupindex)
    except (re.error, RecursionError, OverflowError) as error:
        raise SetupError(f"--slice-by {pattern}: no regular expression ({error})") from error
    if len(groups) != 1:
        raise SetupError(f"--slice-by {pattern}: names the groups {', '.join(groups)}; expected one (?P<name>...)")
    command = [sys.executable, "-c", _MATCH.replace("GROUP", repr(groups[0]))]
    try:
        asked = json.dumps([pattern, names])
        done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=limit_s, check=True)
    except subprocess.TimeoutExpired as error:
        raise SetupError(
            f"--slice-by {pattern}: takes more than {limit_s:g} s for {len(names)} names; expected a pattern without "
            "repetitions of repetitions, such as (a+)+"
        ) from error
    except subprocess.CalledProcessError as error:
        raise SetupError(f"--slice-by {pattern}: {(error.stderr.splitlines() or ['cannot be matched'])[-1]}") from error
    return groups[0], [text or "" for text in json.loads(done.stdout)]
