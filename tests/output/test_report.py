"""The page of an evaluation: one file, nothing left out silently, and it fits a phone and a desk."""

from __future__ import annotations

import html
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from harness.cli import main
from harness.images import dataset
from harness.output.report import plots
from harness.output.report.evaluation import render as page
from harness.tools import metrics
from harness.tools.evaluate import Evaluation
from tests.conftest import DIGITS
from tests.output.browser import look


def evaluation(
    images: int = 60, classes: int = 11, right: float = 0.5, without: tuple[int, ...] = (), name: str = ""
) -> Evaluation:
    """Answers drawn at random, of which a share is right; no image of the classes in `without`."""
    rng = np.random.default_rng(0)
    labels = rng.choice([c for c in range(classes) if c not in without], images)
    outputs = rng.uniform(0, 0.5, (images, classes))
    outputs[np.arange(images), labels] += rng.random(images) < right
    pixels = rng.integers(0, 256, (images, 28, 28, 1), dtype=np.uint8)
    spec = replace(DIGITS, class_names=tuple(map(str, range(classes))))
    data = dataset.build(pixels, labels.tolist(), [f"{label}/{i}{name}.jpg" for i, label in enumerate(labels)], spec)
    scores = metrics.score(outputs, data.labels)
    model = Path("runs/some/folder") / f"{name or 'model'}.tflite"
    return Evaluation(model, "0" * 64, 1_000_000, Path("data/test"), data, outputs, scores, "a runtime", "2026-01-01")


class Tags(HTMLParser):
    """Every tag of a page with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_comes_from_the_command_line(tiny_variants: Path, few_images: Path, tmp_path: Path) -> None:
    """--html writes the page of the model that was asked for."""
    model, file = tiny_variants / "int8.tflite", tmp_path / "sub" / "e.html"
    assert main(["evaluate", str(model), "--data", str(few_images), "--html", str(file)]) == 0
    text = file.read_text()
    assert text.startswith("<!doctype html>")
    assert str(model) in text
    assert "of 110 images misread" in text


def test_the_page_needs_nothing_else_and_every_picture_has_a_text() -> None:
    """No script, no link, no address of a network; pictures are inside and described."""
    tags = Tags(page(evaluation())).tags
    assert not {"script", "link", "iframe"} & {tag for tag, _ in tags}
    pictures = [attributes for tag, attributes in tags if tag == "img"]
    assert len(pictures) > 2
    assert all(picture["alt"] for picture in pictures)
    sources = [a.get("src") or a.get("srcset") or "" for tag, a in tags if tag in ("img", "source")]
    assert all(source.startswith("data:image/") for source in sources)
    assert [a["media"] for tag, a in tags if tag == "source"] == ["(prefers-color-scheme: dark)"] * 2


def test_a_page_with_many_misses_stays_small_and_says_what_it_leaves_out() -> None:
    """2,000 misses of noise, which compresses worst: under 2 MB, the number shown and the number of all."""
    poor = evaluation(images=2500, right=0.1)
    text = page(poor)
    assert len(text.encode()) < 2_000_000
    shown = text.count('alt="Image of class')
    assert 0 < shown < len(poor.misses)
    assert f"{shown} of {len(poor.misses)}" in text
    assert poor.data.names[poor.misses[0]] in text
    assert poor.data.names[poor.misses[-1]] not in text


def test_a_page_of_many_classes_stays_small() -> None:
    """Two hundred classes: the weakest are drawn, the table has all."""
    text = page(evaluation(images=2000, classes=200))
    assert len(text.encode()) < 2_000_000
    assert text.count('<th scope="row">') == 200


def test_a_page_without_a_miss_says_so() -> None:
    """All right: no gallery, no confusions."""
    text = page(evaluation(right=1.0))
    assert "None: every image was read rightly." in text
    assert "No class was taken for another." in text
    assert "all 60 images" in text


def test_classes_without_images_are_drawn_without_a_figure() -> None:
    """A dash in the table; neither figure warns or fails."""
    sparse = evaluation(images=5, without=(0, 1, 2, 3, 4, 5), right=1.0)
    assert "<td>-</td>" in page(sparse)


def test_names_are_text_not_markup() -> None:
    """A file name cannot smuggle in tags."""
    text = page(evaluation(name="<script>alert(1)</script>"))
    assert "script" not in {tag for tag, _ in Tags(text).tags}
    assert html.escape("<script>") in text


def test_the_same_evaluation_gives_the_same_page() -> None:
    """Byte for byte: no dates or random names in its figures."""
    assert page(evaluation()) == page(evaluation())


def test_figures_show_what_they_are_given() -> None:
    """Counts in the matrix, titles above the images, a model's name in the comparison."""
    done = evaluation(images=40)
    counts = [text.get_text() for text in plots.confusion(done.scores).axes[0].texts]
    assert sorted(map(int, counts)) == sorted(done.scores.confusion[done.scores.confusion > 0].tolist())
    titles = [axes.get_title() for axes in plots.gallery(done, done.order[:10], columns=4).axes]
    assert len(titles) == 12
    first = done.order[0]
    expected = f"{done.data.labels[first]} → {done.answers[first]}\n{done.confidences[first]:.2f}"
    assert titles[0] == expected
    names = [text.get_text() for text in plots.compare([done, evaluation(name="other")]).legends[0].get_texts()]
    assert names == ["runs/some/folder/model.tflite", "runs/some/folder/other.tflite"]
    assert plots.gallery(done, []).texts[0].get_text() == "no image"


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("classes", [11, 200])
def test_the_page_fits_its_window(width: int, classes: int, tmp_path: Path) -> None:
    """A phone and a desktop: as wide as the window, also with long names; all pictures load, the console is empty."""
    seen = look(page(evaluation(classes=classes, name="a-name-of-some-length-" * 6)), width, tmp_path)
    assert seen.width <= width
    assert seen.loaded == seen.pictures > 2
    assert not seen.console
