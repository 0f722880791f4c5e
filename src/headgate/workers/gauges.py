"""What this machine's gauges say while something runs: processor time and energy."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

_IDLE = (3, 4)  # of a line of /proc/stat: idle and waiting for a disk
_COUNTED = 8  # user, nice, system, idle, iowait, irq, softirq, steal; guests are within user


def read_idle_s(cores: Collection[int], root: Path = Path("/")) -> float | None:
    """Seconds that these cores together had nothing to do since boot; None where the kernel does not tell."""
    names = {f"cpu{core}" for core in cores}
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = [line.split() for line in (root / "proc/stat").read_text(encoding="ascii").splitlines()]
        found = [words for words in lines if words and words[0] in names]
        if len(found) == len(names):
            ticks = sum(int(words[1 + place]) for words in found for place in _IDLE)
            return ticks / os.sysconf("SC_CLK_TCK")
    return None


def read_run_s(pid: int, root: Path = Path("/")) -> float | None:
    """Processor seconds of all present threads of a process, to the nanosecond; None where the kernel does not tell."""
    nanoseconds = 0
    with contextlib.suppress(OSError, ValueError):
        for thread in (root / f"proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                nanoseconds += int((thread / "schedstat").read_text(encoding="ascii").split()[0])
    return nanoseconds / 1e9 if nanoseconds else None


def read_busy_s(root: Path = Path("/")) -> float | None:
    """Processor seconds that all cores together have been busy since boot, time stolen by other guests too."""
    with contextlib.suppress(OSError, ValueError):
        first = (root / "proc/stat").read_text(encoding="ascii").splitlines()[0].split()
        ticks = [int(word) for word in first[1 : 1 + _COUNTED]]
        return sum(tick for place, tick in enumerate(ticks) if place not in _IDLE) / os.sysconf("SC_CLK_TCK")
    return None


def read_energy_j(root: Path = Path("/")) -> float | None:
    """Joules that all processor packages have taken since some moment; None where the kernel does not tell us.

    Source: Documentation/power/powercap; a counter wraps, so a difference below zero means nothing.
    """
    found: list[int] = []
    # Why no deeper: the domains below a package (its cores, its memory) are counted in it.
    for path in sorted(root.glob("sys/class/powercap/intel-rapl:[0-9]*")):
        if path.name.count(":") == 1:
            with contextlib.suppress(OSError, ValueError):  # since 2020 it is for root's eyes only
                found.append(int((path / "energy_uj").read_text(encoding="ascii")))
    return sum(found) / 1e6 if found else None
