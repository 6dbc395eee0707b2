"""A pytest plugin: a test asserts that a variant answers like its Keras model, on the device that will run it.

    @pytest.mark.harness(device="ssh://pi@raspberrypi.local", absent="skip")
    def test_int8_on_the_pi(harness_check):
        harness_check("int8")

pytest loads it wherever the harness is installed; `-p no:harness` leaves it out. It imports what it needs when it is
used, so that other tests do not wait for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from harness.records.record import Record

MARKER = (
    'harness(device="local", accelerator="cpu", latency=False, skip_bad=False, unlabelled=False, slice_by="", '
    'absent="fail", models=..., reference=..., data=..., policy=..., records=...): what harness_check checks, where, '
    "and whether a test fails or is skipped whose device or accelerator is absent"
)
PATHS = {
    "models": ("models/tflite", "folder of variants that harness convert wrote"),
    "reference": ("", "the Keras model that they were made from"),
    "data": ("data/test", "images named <class>_<n>.<ext> or <class>/<name>"),
    "policy": ("", "limits of your own; empty: those that harness check --print-policy shows"),
    "records": ("runs/pytest", "folder for the record of each test"),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Keywords of the marker. Paths that it does not name come from pytest's configuration, as harness_models."""

    models: Path
    reference: Path
    data: Path
    policy: Path | None
    records: Path
    device: str = "local"
    accelerator: str = "cpu"
    latency: bool = False
    skip_bad: bool = False
    unlabelled: bool = False
    slice_by: str = ""
    absent: str = "fail"


@dataclasses.dataclass(frozen=True)
class HarnessCheck:
    """The fixture `harness_check`. path: of the record. record_property: pytest's fixture."""

    settings: Settings
    path: Path
    record_property: Callable[[str, object], None]

    def __call__(self, *variants: str) -> Record:
        """Check these variants, or all in the folder; the record. The test fails unless the verdict is PASS."""
        __tracebackhide__ = True
        from harness.core.errors import AbsentError, SetupError
        from harness.core.outcome import Outcome
        from harness.output.formats import runs, words

        problem: SetupError | None = None
        try:
            record = self._checked(variants)
        except SetupError as error:
            problem = error
        if isinstance(problem, AbsentError) and self.settings.absent == "skip":
            pytest.skip(str(problem))
        if problem:
            pytest.fail(str(problem), pytrace=False)
        self.record_property("harness_record", str(self.path))
        self.record_property("harness_verdict", str(record.outcome))
        if record.outcome is not Outcome.PASS:
            verdicts = {cell.name: cell.verdict for cell in record.cells}
            if record.timing:
                verdicts["latency"] = record.timing.verdict
            lines = [f"{record.outcome}: {words.sentence(runs.side_by_side([record]))}"]
            for name, verdict in verdicts.items():
                if verdict.outcome is not Outcome.PASS:
                    lines += [f"{name}: {reason}" for reason in verdict.reasons]
            pytest.fail("\n".join([*lines, f"record: {self.path}"]), pytrace=False)
        return record

    def inference(self, variant: str, threads: int = 1) -> Callable[[], None]:
        """A function that runs a variant on this machine, on the next of the images at each call.

        `benchmark(harness_check.inference("int8"))` measures it with pytest-benchmark.
        """
        from itertools import cycle

        from harness.artifacts import manifest
        from harness.check import subject
        from harness.images import dataset
        from harness.run import worker

        settings = self.settings
        chosen = subject.select(manifest.read(settings.models), (variant,), settings.models)[variant]
        images = dataset.load(settings.data, chosen.spec, skip_bad=settings.skip_bad).inputs()
        model = worker.load(chosen.path(settings.models).read_bytes(), threads, settings.accelerator)
        tensors = cycle(model.quantize(worker.timed_images(images)))

        def infer() -> None:
            model.set(next(tensors))
            model.invoke()

        return infer

    def _checked(self, variants: tuple[str, ...]) -> Record:
        """The record, written. Raises SetupError."""
        from contextlib import nullcontext

        from harness.check import pipeline, subject
        from harness.check.engine import LocalEngine
        from harness.check.references import KerasReferences
        from harness.core.cell import accelerators
        from harness.core.errors import SetupError
        from harness.core.progress import NO_BARS
        from harness.images import labels, shards, slices
        from harness.judge import policy
        from harness.records import record
        from harness.run.latency_plan import LatencyPlan

        settings = self.settings
        plan = LatencyPlan() if settings.latency else None
        checked = subject.load(settings.models, settings.reference, policy.load(settings.policy), variants, plan)
        checked = dataclasses.replace(checked, accelerators=accelerators([settings.accelerator]))
        source = shards.open_source(settings.data, checked.spec, labelled=not settings.unlabelled)
        names = () if settings.unlabelled else checked.spec.label_names
        check = pipeline.Check(
            checked,
            source,
            (settings.device,),
            self.path,
            skip_bad=settings.skip_bad,
            slices=slices.divide(source, settings.slice_by) if settings.slice_by else None,
            labels=labels.read(source, names) if names else None,
        )
        references = KerasReferences(settings.reference, settings.models, lambda _: nullcontext())
        with references, LocalEngine([settings.device]) as engine:
            (result,) = pipeline.run_all([check], engine, references, NO_BARS)
        if isinstance(result, SetupError):
            raise result
        if result is None or result.interrupted:
            raise KeyboardInterrupt
        record.write(result.record, self.path)
        return result.record


def pytest_addoption(parser: pytest.Parser) -> None:
    for name, (default, description) in PATHS.items():
        parser.addini(f"harness_{name}", f"{description} (for harness_check)", default=default)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)


@pytest.fixture
def harness_check(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> HarnessCheck:
    """Call it with the names of variants to assert that they pass; see the marker `harness`."""
    from harness.core.files import slug

    settings = _settings(request)
    return HarnessCheck(settings, settings.records / f"{slug(request.node.nodeid)}.json", record_property)


def _settings(request: pytest.FixtureRequest) -> Settings:
    """Of the markers, the nearest first, and of the configuration."""
    known = {field.name for field in dataclasses.fields(Settings)}
    keywords: dict[str, Any] = {}
    for marker in request.node.iter_markers("harness"):
        if marker.args or (unknown := sorted(marker.kwargs.keys() - known)):
            wrong = marker.args[0] if marker.args else unknown[0]
            pytest.fail(f"marker harness: {wrong!r}; expected keywords: {', '.join(sorted(known))}", pytrace=False)
        keywords = dict(marker.kwargs) | keywords
    for name in PATHS:
        path = keywords.get(name) or request.config.getini(f"harness_{name}")
        keywords[name] = request.config.rootpath / path if path else None
    if keywords["reference"] is None:
        pytest.fail(
            "harness_check: no Keras model is named; set harness_reference in pytest's configuration, or reference in "
            "the marker",
            pytrace=False,
        )
    if keywords.get("absent", "fail") not in ("fail", "skip"):
        pytest.fail(f"marker harness: absent={keywords['absent']!r}; expected 'fail' or 'skip'", pytrace=False)
    return Settings(**keywords)
