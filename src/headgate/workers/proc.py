"""What /proc says of processes. Used by the supervisor too, so it imports next to nothing."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")


class Stat(NamedTuple):
    """One process at one moment. `started_ticks` is ticks since boot: with the pid it is an identity."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    started_ticks: int
    cpu_ticks: int


def read_stat(pid: int, root: Path = PROC) -> Stat | None:
    """What the kernel knows of `pid`, zombie or not; None when there is no such process."""
    try:
        text = (root / str(pid) / "stat").read_bytes().decode("ascii", "replace")
    except OSError:
        return None
    # Why the last bracket: the command's name stands in brackets and may hold spaces and brackets itself.
    fields = text[text.rindex(")") + 2 :].split()
    return Stat(
        pid=pid,
        state=fields[0],
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        started_ticks=int(fields[19]),
        cpu_ticks=int(fields[11]) + int(fields[12]),
    )


def is_running(pid: int, started_ticks: int, root: Path = PROC) -> bool:
    """Whether that very process (not a later one with its number) is alive and not a zombie."""
    stat = read_stat(pid, root)
    return stat is not None and stat.started_ticks == started_ticks and stat.state not in "ZX"


def read_cpu_s(pid: int, root: Path = PROC) -> float | None:
    """Processor seconds that `pid` has used in all its threads; None when there is no such process."""
    stat = read_stat(pid, root)
    return None if stat is None else stat.cpu_ticks / os.sysconf("SC_CLK_TCK")


def children_of(parent: int, root: Path = PROC) -> list[int]:
    """Pids of the direct children of `parent`, zombies included."""
    stats = (read_stat(int(entry.name), root) for entry in root.iterdir() if entry.name.isdigit())
    return [stat.pid for stat in stats if stat is not None and stat.parent == parent]


def read_pss_bytes(pid: int, root: Path = PROC) -> int | None:
    """Resident bytes of `pid`, shared pages divided by their users; None when it cannot be read."""
    return _read_kib(root / str(pid) / "smaps_rollup", "Pss:")


def read_rss_bytes(pid: int, root: Path = PROC) -> int | None:
    """Resident bytes of `pid` now; None when it cannot be read."""
    return _read_kib(root / str(pid) / "status", "VmRSS:")


def read_peak_bytes(pid: int, root: Path = PROC) -> int | None:
    """The most bytes `pid` was ever resident with; None when it cannot be read."""
    return _read_kib(root / str(pid) / "status", "VmHWM:")


def read_oom_kills(root: Path = PROC) -> int | None:
    """How many processes this machine has killed for want of memory since boot; None when it does not say."""
    with contextlib.suppress(OSError):
        for line in (root / "vmstat").read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return None


def _read_kib(path: Path, key: str) -> int | None:
    with contextlib.suppress(OSError):  # gone, or not ours to read
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(key):
                return int(line.split()[1]) * 1024
    return None
