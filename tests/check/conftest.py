"""Fixtures of the check's tests."""

from __future__ import annotations

from tests.check.rig import check as check
