"""`harness device doctor` and the machine's state, read from a made-up /proc and /sys."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from harness.cli import main
from harness.run.worker import STATE, Gauges
from harness.tools import doctor

STAT = "cpu  900 0 50 1000 5 0 1 70 0 0\ncpu0 100 0 50 1000 5 0 1 7 0 0\n"


@pytest.fixture
def laptop(tmp_path: Path) -> Path:
    """A root of files: powersave at 1.8 GHz, turbo, 83 degrees, on battery, a quota of half a core."""
    files = {
        "proc/stat": STAT,
        "proc/meminfo": "MemTotal: 8000000 kB\nMemAvailable:   4000000 kB\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1800000\n",
        "sys/devices/system/cpu/intel_pstate/no_turbo": "0\n",
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "12\n",
        "sys/class/thermal/thermal_zone0/temp": "30000\n",
        "sys/class/thermal/thermal_zone0/type": "wifi\n",
        "sys/class/thermal/thermal_zone1/temp": "83000\n",
        "sys/class/thermal/thermal_zone1/type": "x86_pkg_temp\n",
        "sys/class/power_supply/BAT0/status": "Discharging\n",
        "sys/class/power_supply/BAT0/capacity": "55\n",
        "sys/fs/cgroup/cpu.max": "50000 100000\n",
    }
    return tree(tmp_path, files)


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def test_the_state_is_read_from_what_the_system_shows(laptop: Path) -> None:
    """Frequency, the processor's own temperature, throttling, battery, stolen time, in their units."""
    state = dict(zip(STATE, Gauges([0], laptop).read(), strict=True))
    assert (state["frequency_hz"], state["temperature_c"], state["battery_percent"]) == (1.8e9, 83.0, 55.0)
    assert (state["throttle_count"], state["steal_s"]) == (12.0, 0.07)
    assert math.isnan(state["throttled"])


def test_what_is_not_there_is_unavailable(tmp_path: Path) -> None:
    """Not zero: nothing is reported as fine that was not read."""
    state = dict(zip(STATE, Gauges([0], tmp_path).read(), strict=True))
    for name in ("frequency_hz", "temperature_c", "throttled", "throttle_count", "battery_percent", "others_s"):
        assert math.isnan(state[name])


def test_a_raspberry_pis_bits_of_now_count(tmp_path: Path) -> None:
    """0x50005: under-voltage and throttled now (0x5), and since boot."""
    root = tree(tmp_path, {"sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n"})
    assert dict(zip(STATE, Gauges([0], root).read(), strict=True))["throttled"] == 5.0
    advice = doctor.examine(root, watched_s=0)[0]
    assert "under-voltage now" in advice.seen
    assert "power supply" in advice.todo


def test_every_trouble_is_named_with_a_remedy(laptop: Path) -> None:
    """What the made-up laptop suffers from, each with what to do."""
    found = doctor.examine(laptop, watched_s=0)
    shown = "\n".join(f"{advice.seen}: {advice.todo}" for advice in found)
    for words in (
        "83 C",
        "throttled 12 times",
        "running on battery: plug it in",
        "0.5 cores",
        "powersave: echo performance | sudo tee",
        "turbo is on",
    ):
        assert words in shown
    assert all(advice.todo for advice in found if "unavailable" not in advice.seen and "may use" not in advice.seen)


def test_the_command_shows_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    """On this machine, whatever it is: an outcome that fits its last line."""
    code = main(["device", "doctor"])
    last = capsys.readouterr().out.splitlines()[-1]
    assert (code, last) in ((0, "nothing to change"), (3, "change these from the top, and ask again"))
