"""Figures and pages for people. Needs the extra `report`; all else runs without it."""

from harness.core import extras

try:
    import jinja2 as jinja2
    import matplotlib as matplotlib
except ModuleNotFoundError as error:
    raise extras.missing("report", f"{error}; figures and pages need it") from error
