from __future__ import annotations

import pytest

from harness.core.cell import ACCELERATORS, Accelerator, Cell
from harness.core.errors import SetupError


@pytest.mark.parametrize("accelerator", ACCELERATORS)
def test_a_cell_is_read_back_from_its_text(accelerator: Accelerator) -> None:
    cell = Cell("int8_float_io", accelerator)
    assert Cell.parse(str(cell)) == cell


def test_a_cell_on_the_cpu_is_called_by_its_variant_alone() -> None:
    assert str(Cell("int8")) == "int8"
    assert str(Cell("int8", "gpu")) == "int8@gpu"


@pytest.mark.parametrize("text", ["", "@gpu", "int8@", "int8@cpu", "int8@tpu", "int8@gpu@gpu"])
def test_a_text_that_names_no_cell_is_refused(text: str) -> None:
    with pytest.raises(SetupError, match="expected a variant's name"):
        Cell.parse(text)
