"""Skips are taken for what is missing by name, and none is taken where HARNESS_REQUIRE forbids it."""

from __future__ import annotations

import pytest

from tests.needs import NEEDS, needs


def test_a_missing_program_is_a_skip_unless_it_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an empty PATH nothing is installed: a skip that names program and package, or a failure."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("HARNESS_REQUIRE", "")
    with pytest.raises(pytest.skip.Exception, match="Chromium is not installed"):
        needs("browser")
    for required in ("browser", "devices,browser", "all"):
        monkeypatch.setenv("HARNESS_REQUIRE", required)
        with pytest.raises(pytest.fail.Exception, match="asks for browser: Chromium is not installed"):
            needs("browser")


def test_an_unknown_name_in_harness_require_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt need would never be required: every name must be one of NEEDS, or all."""
    with pytest.raises(KeyError):
        needs("bowser")
    assert set(NEEDS) >= {"browser", "devices", "emulation", "namespaces", "accelerators", "npu"}
