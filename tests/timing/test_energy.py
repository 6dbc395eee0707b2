"""Joules of an inference: each source's format is read, blocks are paired, and nothing is shown that was not read."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pytest

from harness.core.outcome import Outcome
from harness.images import dataset
from harness.judge.policy import LatencyRule
from harness.run import execute, job, worker
from harness.run.latency_plan import LatencyPlan
from harness.run.latency_run import LatencyRun, latency_run
from harness.run.worker import Meter
from harness.timing import limits, verdict
from harness.timing.energy import energy
from harness.timing.figures import Energy
from models.config import DIGITS

# As `vcgencmd pmic_read_adc` prints, shortened: 0.1 A * 4 V + 0.5 A * 1 V; the last two rails have no current.
PMIC = """\
 3V7_WL_SW_A current(0)=0.10000000A
  VDD_CORE_A current(7)=0.50000000A
 3V7_WL_SW_V volt(8)=4.00000000V
  VDD_CORE_V volt(15)=1.00000000V
     EXT5V_V volt(24)=5.10540000V
      BATT_V volt(25)=0.00000000V
"""
# As `dumpsys battery` prints, shortened.
BATTERY = """\
Current Battery Service state:
  AC powered: false
  USB powered: {usb}
  Max charging current: 0
  Charge counter: {charge}
  status: 3
  level: 83
  voltage: 4000
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty machine, and a folder that stands first on the path for its programs."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return tmp_path


def program(root: Path, name: str, prints: str) -> None:
    (root / name).write_text(prints)
    (root / "bin" / name).write_text(f"#!/bin/sh\ncat {root / name}\n")
    (root / "bin" / name).chmod(0o755)


def write(root: Path, **files: str) -> None:
    """Files of a folder, whose names have no dots."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (root / name).write_text(f"{content}\n")


def test_rapls_counters_are_summed_and_wrap_around(root: Path) -> None:
    """Two processors; their parts, which are in them, are not counted again."""
    zones = [root / "sys/class/powercap" / f"intel-rapl:{number}" for number in range(2)]
    for zone in zones:
        write(zone, name=f"package-{zone.name[-1]}", energy_uj="900000", max_energy_range_uj="1000000")
    write(root / "sys/class/powercap/intel-rapl:0:0", name="core", energy_uj="5", max_energy_range_uj="9")
    meter = Meter(root)
    assert meter.source == "RAPL package-0, package-1"
    begin = meter.read()
    write(zones[0], energy_uj="100000")
    assert meter.read() - begin == pytest.approx(0.2)
    (zones[0] / "energy_uj").write_text("")  # as where only root may read it
    assert "only root may read (sudo chmod a+r" in Meter(root).source


def test_a_raspberry_pis_rails_are_summed(root: Path) -> None:
    """Rails without a current are left out; power counts over time."""
    program(root, "vcgencmd", PMIC)
    meter = Meter(root)
    assert meter.source == "PMIC rails"
    assert meter._watts == pytest.approx(0.9)
    begin = meter.read()
    time.sleep(0.05)
    assert meter.read() - begin >= 0.9 * 0.05
    program(root, "vcgencmd", 'error=1 error_msg="Command not registered"\n')
    assert Meter(root).source == "unavailable: no RAPL counters; no PMIC; no battery"


def test_a_battery_counts_only_while_no_cable_charges_it(root: Path) -> None:
    """A laptop's by its power or current, of either sign; Android's by its charge counter."""
    supply = root / "sys/class/power_supply/BAT0"
    write(supply, type="Battery", status="Discharging", current_now="-500000", voltage_now="4000000")
    meter = Meter(root)
    assert meter.source == "battery BAT0"
    assert meter._watts == pytest.approx(2.0)
    write(supply, power_now="3000000")
    assert Meter(root)._watts == pytest.approx(3.0)
    write(supply, status="Charging")
    assert "which charges it: unplug it" in Meter(root).source
    (supply / "power_now").unlink()
    (supply / "current_now").unlink()
    program(root, "dumpsys", BATTERY.format(usb="false", charge=3000000))
    meter = Meter(root)
    assert meter.source == "battery's charge counter"
    begin = meter.read()
    program(root, "dumpsys", BATTERY.format(usb="false", charge=2999000))
    assert meter.read() - begin == pytest.approx(1e-3 * 3600 * 4, rel=1e-3)
    program(root, "dumpsys", BATTERY.format(usb="true", charge=3000000))
    assert "use adb over Wi-Fi" in Meter(root).source


def run(joules: dict[str, float], source: str = "a meter") -> LatencyRun:
    """float32 and int8 in turn, six blocks of ten inferences each, which use so many joules a block, 1 % apart."""
    rng = np.random.default_rng(0)
    kinds = ["float32", "int8"]
    order = np.array([0, 1, 1, 0] * 3)
    state = np.full((12, 3, len(worker.STATE)), np.nan)
    state[:, :, worker.STATE.index("clock_s")] = 2 * np.arange(12)[:, np.newaxis] + [0, 0.5, 1.0]
    arrays = {"kinds": np.array(kinds), "control": np.array(""), "order": order, "state": state}
    arrays |= {"memory": np.array([1.0, 1.0]), "cores": np.array([0]), "governor": np.array("x")}
    for kind in kinds:
        arrays |= {f"{kind}.samples": np.full((6, 10), 0.1), f"{kind}.settled": np.array(True)}
        arrays |= {f"{kind}.load": np.array(1.0), f"{kind}.first": np.array(1.0)}
    arrays["energy_j"] = np.array([joules[kinds[place]] for place in order]) * rng.uniform(0.99, 1.01, 12)
    return latency_run(arrays | {"mode": np.array("energy"), "energy_source": np.array(source)}, "a test")


def test_energy_is_of_an_inference_and_paired() -> None:
    """A block's joules over its ten inferences, its ratio from blocks side by side, and the power of the device."""
    measured = energy(run({"float32": 20.0, "int8": 10.0}), "int8", "float32")
    assert measured.joules == pytest.approx(1.0, rel=0.01)
    assert measured.watts == pytest.approx(10.0, rel=0.01)
    assert measured.ratio == pytest.approx(0.5, rel=0.02)
    assert measured.ratio_interval is not None
    assert measured.ratio_interval.low < 0.5 < measured.ratio_interval.high
    figures = verdict.by_mode([run({"float32": 20.0, "int8": 10.0})])
    for limit, outcome in ((1.2, Outcome.PASS), (0.8, Outcome.FAIL)):
        rule = LatencyRule(variant="int8", mode="energy", max_joules=limit)
        (judged,) = limits.judge([rule], figures, [])
        assert judged.outcome is outcome
        assert judged.reasons[0].startswith("int8: energy joules 1e+03 mJ")


@pytest.mark.parametrize(
    ("joules", "source"),
    [
        ({"float32": math.nan, "int8": math.nan}, "unavailable: no battery"),
        (
            {"float32": 0.0, "int8": 10.0},
            "unavailable: a meter does not move within a block; harness check --energy 60s",
        ),
    ],
)
def test_what_was_not_read_is_not_shown(joules: dict[str, float], source: str) -> None:
    """Neither a figure nor a ratio: why; and a limit is INCONCLUSIVE."""
    measured = run(joules, "a meter" if joules["int8"] == 10 else source)
    assert energy(measured, "float32", "float32") == Energy(None, None, None, source)
    rule = LatencyRule(variant="float32", mode="energy", max_joules=1)
    (judged,) = limits.judge([rule], verdict.by_mode([measured]), [])
    assert judged.outcome is Outcome.INCONCLUSIVE
    assert judged.reasons == ("float32: energy joules unavailable on this device",)


def test_a_job_asks_the_devices_meter(tiny_variants: Path, few_images: Path, tmp_path: Path) -> None:
    """Here in short blocks, each of which has joules, or none of which has any."""
    plan = LatencyPlan(processes=1, turns=1, block_s=0.002, warmup_s=0.01, energy_block_s=0.02)
    contents = {kind: (tiny_variants / f"{kind}.tflite").read_bytes() for kind in ("float32", "int8")}
    outputs = execute.run(
        job.write_latency(tmp_path, contents, dataset.load(few_images, DIGITS), plan), lambda *_: None
    )
    measured = latency_run(outputs.results["latency-2"].arrays, "a test")
    assert measured.mode == "energy"
    assert measured.energy_j is not None
    assert np.isnan(measured.energy_j).all() == measured.energy_source.startswith("unavailable: ")
