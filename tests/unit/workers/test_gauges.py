"""Gauges of a machine, read from a tree of files that stands for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headgate.workers.gauges import read_busy_s, read_energy_j, read_idle_s, read_run_s

STAT = """cpu  100 10 50 1000 20 3 4 5 9 9
cpu0 60 5 25 600 10 1 2 3 9 9
cpu1 40 5 25 400 10 2 2 2 0 0
intr 12345
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text(STAT)
    return tmp_path


def test_busy_is_all_but_idle_and_waiting_and_guests_are_counted_once(machine: Path) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    assert read_busy_s(machine) == pytest.approx((100 + 10 + 50 + 3 + 4 + 5) / ticks)
    assert read_busy_s(machine / "none") is None


def test_idle_is_that_of_the_cores_asked_for(machine: Path) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    assert read_idle_s((1,), machine) == pytest.approx(410 / ticks)
    assert read_idle_s((0, 1), machine) == pytest.approx(1020 / ticks)
    assert read_idle_s((0, 7), machine) is None, "a core that the kernel does not tell of"


def test_run_time_is_that_of_all_threads(tmp_path: Path) -> None:
    for thread, nanoseconds in (("7", 1_500_000_000), ("8", 500_000_000)):
        (tmp_path / "proc/7/task" / thread).mkdir(parents=True)
        (tmp_path / "proc/7/task" / thread / "schedstat").write_text(f"{nanoseconds} 42 3\n")
    (tmp_path / "proc/7/task/9").mkdir()  # it ends while it is looked at
    assert read_run_s(7, tmp_path) == pytest.approx(2.0)
    assert read_run_s(1, tmp_path) is None


def test_energy_is_that_of_packages_alone(tmp_path: Path) -> None:
    assert read_energy_j(tmp_path) is None
    for name, joules in (("intel-rapl:0", 2), ("intel-rapl:1", 3), ("intel-rapl:0:0", 1)):
        folder = tmp_path / "sys/class/powercap" / name
        folder.mkdir(parents=True)
        (folder / "energy_uj").write_text(f"{joules * 1_000_000}\n")
    assert read_energy_j(tmp_path) == pytest.approx(5.0)
