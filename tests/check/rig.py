"""A check of the tiny variants on few images, for the tests of whatever distributes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import replace

from harness.check import pipeline, subject
from harness.check.engine import Engine
from harness.check.pipeline import CheckedRun
from harness.check.references import KerasReferences
from harness.core import shapes
from harness.core.errors import SetupError
from harness.core.progress import NO_BARS
from harness.images import shards
from harness.judge import policy
from harness.records.record import Record
from tests.conftest import FEW_IMAGES_POLICY, quiet_step


@dataclass
class Check:
    """A check of the tiny variants on few images, in shards of some size; without latency."""

    models: Path
    model: Path
    data: Path

    def run(self, engine: Engine, devices: list[str], record: Path, size: int, *, skip_bad: bool = False) -> CheckedRun:
        """Raises the SetupError of a check that has no record."""
        what = subject.load(self.models, self.model, policy.load(FEW_IMAGES_POLICY))
        source = shards.open_source(self.data, what.spec)
        asked = pipeline.Check(what, source, tuple(devices), record, size, skip_bad)
        with KerasReferences(self.model, self.models, quiet_step) as references:
            (result,) = pipeline.run_all([asked], engine, references, NO_BARS)
        if isinstance(result, SetupError):
            raise result
        assert result
        return result


@pytest.fixture(scope="session")
def check(tiny_variants: Path, tiny_model: Path, few_images: Path) -> Check:
    return Check(tiny_variants, tiny_model, few_images)


def figures(record: Record) -> str:
    """The record's JSON, byte for byte, but for the time it was started at."""
    return shapes.encode(replace(record.body, started="")).decode()
