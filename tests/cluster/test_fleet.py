"""A fleet file: what it may say, which devices it means, one verdict for all, and only what is missing is run again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.check import fleet
from harness.check.engine import LocalEngine
from harness.cli import main
from harness.core.errors import SetupError
from harness.core.progress import NO_BARS
from harness.output import terminal
from harness.records import sharded_arrays
from tests.check.rig import Check
from tests.cluster.conftest import Lab, wait_for
from tests.conftest import FEW_IMAGES_POLICY, quiet_step, refusal

KNOWN = {
    "local://bench": {"machine": "x86_64", "cores": 8, "memory_bytes": 16_000_000_000, "emulated": False},
    "adb://R58": {"machine": "aarch64", "cores": 8, "memory_bytes": 3_900_000_000, "emulated": False},
    "adb://10.0.0.7:5555": {"machine": "aarch64", "cores": 4, "memory_bytes": 8_000_000_000, "emulated": True},
    "ssh://pi@pi4": {"machine": "aarch64", "cores": 4, "memory_bytes": None, "emulated": False, "name": "Pi 4"},
}


def written(folder: Path, text: str) -> Path:
    path = folder / "fleet.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ('uri = "ssh://pi@pi4"', ["ssh://pi@pi4"]),
        ('where = { machine = "aarch64", max_memory_gb = 4 }', ["adb://R58"]),
        ('where = { uri = "adb://*" }', ["adb://R58", "adb://10.0.0.7:5555"]),
        ("where = { emulated = false, max_cores = 4 }", ["ssh://pi@pi4"]),
        ('where = { name = "Pi ?" }', ["ssh://pi@pi4"]),
        ("where = { min_memory_gb = 10 }", ["local://bench"]),
    ],
)
def test_devices_are_named_by_uri_or_property(table: str, expected: list[str], tmp_path: Path) -> None:
    """What a host does not know of a device, it does not claim."""
    asked = fleet.read(written(tmp_path, f"[[device]]\n{table}\n"))
    assert [one.uri for one in fleet.members(asked, KNOWN, "fleet.toml")] == expected


def test_a_device_is_judged_by_the_first_table_that_means_it(tmp_path: Path) -> None:
    """One named by URI is, before all properties; none is judged twice."""
    text = '[[device]]\nwhere = { machine = "*64" }\n[[device]]\nuri = "adb://R58"\nvariants = ["int8"]\n'
    found = fleet.members(fleet.read(written(tmp_path, text)), KNOWN, "fleet.toml")
    assert sorted(one.uri for one in found) == sorted(KNOWN)
    assert {one.uri: one.entry.variants for one in found}["adb://R58"] == ("int8",)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", r"at least one \[\[device\]\] table"),
        ("device = 1", "device = 1: expected a list"),
        ('modles = "x"\n[[device]]\nuri = "local"', "unknown key 'modles'; did you mean 'models'"),
        ('[[device]]\nurl = "local"', r"device\[0\]: unknown key 'url'; did you mean 'uri'"),
        ("[[device]]\nwhere = { memory = 4 }", "unknown key 'memory'"),
        ('[[device]]\nwhere = { max_cores = "four" }', "max_cores = 'four': expected"),
        ('[[device]]\nuri = "local"\n[[device]]\nuri = "local"', "local stands in it twice"),
        ("[[device]]\nat_least = 2", "expected either uri or where"),
        ('[[device]]\nuri = "local"\nwhere = { min_cores = 1 }', "expected either uri or where"),
        ('variants = "int8"\n[[device]]\nuri = "local"', "variants = 'int8': expected a list"),
        ("[[device]\n", "not valid TOML"),
    ],
)
def test_files_that_say_no_fleet_are_refused(text: str, what: str, tmp_path: Path) -> None:
    """Each by the key or the table at fault."""
    with pytest.raises(SetupError, match=what):
        fleet.read(written(tmp_path, text))


def test_a_property_that_too_few_devices_have_is_refused(tmp_path: Path) -> None:
    """With what was asked, and what there is."""
    asked = fleet.read(written(tmp_path, '[[device]]\nwhere = { machine = "riscv64" }\n'))
    with pytest.raises(SetupError, match=r"device 1: 0 devices have machine = 'riscv64', .* there are adb://10"):
        fleet.members(asked, KNOWN, "fleet.toml")
    asked = fleet.read(written(tmp_path, '[[device]]\nwhere = { machine = "aarch64" }\nat_least = 4\n'))
    with pytest.raises(SetupError, match="3 devices have"):
        fleet.members(asked, KNOWN, "fleet.toml")


def a_fleet(check: Check, folder: Path, *devices: str) -> Path:
    text = f'models = "{check.models}"\nreference = "{check.model}"\ndata = "{check.data}"\nlatency = false\n'
    text += f'policy = "{FEW_IMAGES_POLICY}"\nresults = "{folder / "results"}"\nvariants = ["float32"]\n'
    return written(folder, text + "".join(f'[[device]]\nuri = "{uri}"\n' for uri in devices))


def test_a_fleet_has_a_verdict_a_device_and_one_for_all(
    check: Check, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """This machine passes, a device that nobody has is INCONCLUSIVE with its reason, and so is the fleet."""
    code = main(["lab", "check", str(a_fleet(check, tmp_path, "local", "adb://nobody-has-it"))])
    shown = capsys.readouterr().out
    assert code == 3
    assert "local                PASS" in shown
    assert "adb://nobody-has-it: INCONCLUSIVE: adb://nobody-has-it: not in sight" in shown
    assert shown.splitlines()[-2] == "verdict: INCONCLUSIVE"
    summary = json.loads((tmp_path / "results" / fleet.SUMMARY).read_text())
    assert [one["verdict"] for one in summary["devices"]] == ["PASS", "INCONCLUSIVE"]
    assert main(["verdict", str(tmp_path / "results" / summary["devices"][0]["record"])]) == 0


def test_only_what_is_missing_is_run_again(check: Check, tmp_path: Path) -> None:
    """The second run answers for the device that was not there, and leaves the other's evidence alone."""
    asked = fleet.read(a_fleet(check, tmp_path, "local", "ssh://later"))
    with LocalEngine(["local"]) as engine:
        done = fleet.run(asked, engine, "fleet.toml", quiet_step, NO_BARS)
    assert [one.outcome for one in done] == ["PASS", "INCONCLUSIVE"]
    evidence = {path: path.stat().st_mtime_ns for path in sharded_arrays.folder_of(done[0].path).iterdir()}
    assert evidence
    with LocalEngine([]) as engine:  # no device at all
        again = fleet.run(asked, engine, "fleet.toml", quiet_step, NO_BARS)
    assert [one.outcome for one in again] == ["PASS", "INCONCLUSIVE"]
    assert {path: path.stat().st_mtime_ns for path in evidence} == evidence
    assert "2 devices: 1 PASS, 1 INCONCLUSIVE" in terminal.fleet(again)


def test_a_fleet_on_a_lab(lab: Lab, check: Check, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Devices of two hosts, by property; one host is lost, and only its device is INCONCLUSIVE."""
    path = a_fleet(check, tmp_path)
    path.write_text(path.read_text() + '[[device]]\nwhere = { uri = "local://*" }\nat_least = 2\n')
    assert main(["lab", "check", str(path), "--scheduler", lab.address]) == 0
    assert "2 devices: 2 PASS" in capsys.readouterr().out
    lab.kill("two")
    wait_for(lambda: "two" not in str(_seen(lab)))
    said = refusal(capsys, main(["lab", "check", str(path), "--scheduler", lab.address]))
    assert "1 devices have uri = 'local://*', expected at least 2" in said


def _seen(lab: Lab) -> list[str]:
    with lab.cluster() as engine:
        return list(engine.devices())
