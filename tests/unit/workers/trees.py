"""Small trees of /proc and /sys for tests."""

from __future__ import annotations

from pathlib import Path

MEMINFO = "MemTotal:       16000000 kB\nMemFree:  1000000 kB\nMemAvailable:   8000000 kB\n"
CPUINFO = "processor\t: 0\nmodel name\t: Test CPU @ 3 GHz\n"
V2_MOUNT = "31 23 0:28 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n"
V1_MOUNTS = (
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)


def plant(root: Path, files: dict[str, str]) -> Path:
    """Write `files` below `root`, beside a usual meminfo and cpuinfo; `root`."""
    for name, content in {"proc/meminfo": MEMINFO, "proc/cpuinfo": CPUINFO, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root
