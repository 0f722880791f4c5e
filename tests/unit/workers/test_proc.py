"""What /proc says, from a tree of our own and from this very process."""

from __future__ import annotations

import os
from pathlib import Path

from headgate.workers.proc import (
    children_of,
    is_running,
    read_cpu_s,
    read_oom_kills,
    read_peak_bytes,
    read_pss_bytes,
    read_rss_bytes,
    read_stat,
)

STAT = "{pid} (a) b (c) {state} 7 8 9 0 -1 4194560 1 0 0 0 30 20 0 0 20 0 1 0 {ticks} 1 1 1\n"


def plant(root: Path, pid: int, state: str, ticks: int) -> None:
    folder = root / str(pid)
    folder.mkdir()
    (folder / "stat").write_text(STAT.format(pid=pid, state=state, ticks=ticks))


def test_a_name_with_brackets_and_spaces(tmp_path: Path) -> None:
    plant(tmp_path, 70, "S", 1234)
    stat = read_stat(70, tmp_path)
    assert stat is not None
    assert (stat.state, stat.parent, stat.group, stat.session, stat.started_ticks) == ("S", 7, 8, 9, 1234)
    assert children_of(7, tmp_path) == [70]
    assert read_cpu_s(70, tmp_path) == 50 / os.sysconf("SC_CLK_TCK")
    assert read_cpu_s(71, tmp_path) is None


def test_running_means_the_same_process_and_no_zombie(tmp_path: Path) -> None:
    plant(tmp_path, 70, "S", 1234)
    plant(tmp_path, 71, "Z", 1234)
    assert is_running(70, 1234, tmp_path)
    assert not is_running(70, 1235, tmp_path)
    assert not is_running(71, 1234, tmp_path)
    assert not is_running(72, 1234, tmp_path)


def test_this_process() -> None:
    stat = read_stat(os.getpid())
    assert stat is not None
    assert stat.parent == os.getppid()
    assert is_running(os.getpid(), stat.started_ticks)
    rss, peak, pss = (read(os.getpid()) for read in (read_rss_bytes, read_peak_bytes, read_pss_bytes))
    assert rss is not None and peak is not None and pss is not None
    assert 0 < pss <= peak
    assert rss <= peak
    assert (read_oom_kills() or 0) >= 0


def test_nobody_there(tmp_path: Path) -> None:
    assert read_pss_bytes(1, tmp_path) is None
    assert read_oom_kills(tmp_path) is None
