"""Which slice an image belongs to: by a table beside the images, by a column of Parquet, by a pattern on names."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from harness.core.errors import SetupError
from harness.images import shards, slices
from harness.images.shards import Source
from models.config import DIGITS

NAMES = [f"{label}_{number}.png" for label in range(3) for number in range(2)]
ROWS = "\n".join(f"{name},{'pixel' if name < '1' else 'moto'},12" for name in NAMES)
TABLE = f"file_name,phone,lux\n{ROWS}\n"


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """Of six files; nothing reads them."""
    for name in NAMES:
        (tmp_path / name).touch()
    return shards.open_source(tmp_path, DIGITS)


def by_table(source: Source, content: str | bytes, by: str = "phone", name: str = "metadata.csv") -> slices.Slices:
    (source.path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return slices.divide(shards.open_source(source.path, DIGITS), by)


def test_a_table_beside_the_images(source: Source, tmp_path: Path) -> None:
    """CSV or Parquet, whatever separates the cells and whatever the only CSV file is called; it is no image."""
    for name, content in (
        ("metadata.csv", TABLE),
        ("slices.csv", TABLE.replace(",", ";")),
        ("slices.csv", "\ufeff" + TABLE.replace(",", "\t").replace("\n", "\r\n")),
        ("slices.csv", TABLE.replace("\n0", "\n./0").replace("file_name", "image")),
    ):
        divided = by_table(source, content, name=name)
        assert Counter(divided.of_image.values()) == {"pixel": 2, "moto": 4}
        assert (divided.by, divided.notes) == ("phone", ())
        (tmp_path / name).unlink()
    columns = {"file_name": NAMES, "phone": ["a"] * 5 + [None], "lux": [1.5] * 6}
    parquet.write_table(pyarrow.table(columns), tmp_path / "metadata.parquet")
    divided = slices.divide(shards.open_source(tmp_path, DIGITS), "phone")
    assert Counter(divided.of_image.values()) == {"a": 5, slices.REST: 1}
    assert divided.notes == ("1 of 6 images have no phone: they are judged as the slice (none)",)


def test_a_column_of_parquet(tmp_path: Path) -> None:
    """Of the set itself, with names and without."""
    table = pyarrow.table({"image": [b"a"] * 4, "label": [1] * 4, "site": [1, 1, 2, None], "name": list("abcd")})
    parquet.write_table(table, tmp_path / "set.parquet")
    source = shards.open_source(tmp_path / "set.parquet", DIGITS)
    assert slices.divide(source, "site").of_image == {"a": "1", "b": "1", "c": "2", "d": slices.REST}
    parquet.write_table(table.drop(["name"]), tmp_path / "set.parquet")
    source = shards.open_source(tmp_path / "set.parquet", DIGITS)
    assert list(source.names()) == [name for name, _, _ in source.entries()] == [f"set/{n}" for n in range(4)]
    assert slices.divide(source, "site").of_image["set/2"] == "2"
    with pytest.raises(SetupError, match="did you mean 'site'"):
        slices.divide(source, "sites")


def test_a_pattern_on_names(source: Source) -> None:
    """What its group matches; names that it does not match are a slice of their own, and said."""
    assert set(slices.divide(source, r"(?P<digit>\d)_").of_image.values()) == {"0", "1", "2"}
    divided = slices.divide(source, r"^(?P<digit>0)_|_")
    assert Counter(divided.of_image.values()) == {"0": 2, slices.REST: 4}
    assert "4 of 6 images have no digit" in divided.notes[0]


@pytest.mark.parametrize(
    ("by", "reason"),
    [
        ("(?P<phone>pixel|moto)_", "puts none of 6 images into a slice, such as '0_0.png'"),
        ("(?P<phone>[)_", "no regular expression (unterminated character set"),
        ("(?P<a>.)(?P<b>.)", "names the groups a, b; expected one"),
        ("phone", "metadata.csv or --table FILE; or a pattern on names with a named group"),
        (r"(\d)_", "or a pattern on names with a named group"),
    ],
)
def test_what_divides_nothing_is_refused(by: str, reason: str, source: Source) -> None:
    """In one line."""
    with pytest.raises(SetupError) as refused:
        slices.divide(source, by)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_pattern_that_takes_too_long_is_stopped() -> None:
    """It runs in a process of its own."""
    with pytest.raises(SetupError, match=r"takes more than 0\.5 s for 1 names"):
        slices._matched(r"(?P<a>(a+)+)$", ["a" * 60 + "b"], 0.5)


@pytest.mark.parametrize(
    ("content", "by", "reason"),
    [
        (TABLE, "phones", "unknown column 'phones'; did you mean 'phone'?"),
        (TABLE + "0_0.png,moto,1\n", "phone", "row 7 names '0_0.png' a second time"),
        (TABLE.replace(".png", ".jpg"), "phone", "names none of the images; it has '0_0.jpg'"),
        ("phone,lux\na,1\n", "phone", "has columns phone, lux; expected a table of images: a column file_name"),
        ("file_name,phone\n", "phone", "has no rows"),
        ("", "phone", "has no rows"),
        ("file_name,phone,phone\na,b,c\n", "phone", "a column stands in it twice"),
        ("file_name,phone\n0_0.png\n", "phone", "row 1 has 1 cells, the header 2"),
        (TABLE.replace("pixel", ""), "lux", ""),
        ("file_name,phone\n0_0.png,\n", "phone", "puts none of 6 images into a slice"),
        (b"file_name,phone\n0_0.png,\xff\xfe\n", "phone", "not CSV in UTF-8"),
        ("file_name,phone\n0_0.png," + "a" * 200_000, "phone", "not CSV in UTF-8 (field larger"),
        ("file_name,phone\n0_0.png," + "a" * 101, "phone", "has 101 characters; expected at most 100"),
    ],
    ids=range(13),
)
def test_tables_that_cannot_be_used_are_refused(content: str | bytes, by: str, reason: str, source: Source) -> None:
    """Each in one line that says what to do."""
    if not reason:
        assert by_table(source, content, by)
        return
    with pytest.raises(SetupError) as refused:
        by_table(source, content, by)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


def test_more_and_fewer_images_than_the_set_has(source: Source, tmp_path: Path) -> None:
    """Both are said; several tables are not guessed among; too many slices are a column of another kind."""
    few = "\n".join(TABLE.splitlines()[:4]) + "\nelsewhere.png,x,1\n"
    divided = by_table(source, few)
    assert Counter(divided.of_image.values()) == {"pixel": 2, "moto": 1, slices.REST: 3}
    assert "1 of its 4 rows are of images that the set does not have" in divided.notes[0]
    (tmp_path / "metadata.csv").rename(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text(TABLE)
    with pytest.raises(SetupError, match=r"has a\.csv, b\.csv; name one of them with --table"):
        slices.divide(source, "phone")
    assert slices.divide(source, "phone", tmp_path / "b.csv").notes == ()
    many = tmp_path / "many"
    many.mkdir()
    for number in range(600):
        (many / f"1_{number}.png").touch()
    with pytest.raises(SetupError, match="600 different slices; expected at most 500"):
        slices.divide(shards.open_source(many, DIGITS), r"_(?P<number>\d+)")
    with pytest.raises(SetupError, match=r"no\.csv: expected a table of images"):
        slices.divide(source, "phone", tmp_path / "no.csv")


def test_a_name_cannot_write_on_the_terminal(source: Source) -> None:
    """Control characters of a table are replaced."""
    divided = by_table(source, f"file_name,phone\n{NAMES[0]},\x1b[2Jred\n")
    assert set(divided.of_image.values()) == {"\N{REPLACEMENT CHARACTER}[2Jred", slices.REST}
