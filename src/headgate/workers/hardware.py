"""What this machine gives us: cores, memory, GPUs. Facts read from the kernel, never from a count of
processors.

All reads go through a root folder, so that tests hand in a tree of their own.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from headgate.workers.cgroup import Cgroups, is_delegated, load_cgroups
from headgate.workers.gpu import Gpu, load_gpus

_UNLIMITED = 1 << 60  # version 1 writes 'no limit' as the largest multiple of a page that fits 63 bits


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareFacts:
    """One machine as this process may use it.

    `core_ids` are the cores we may run on; `cores` how much of them we get: their number, or less by quota
    (1.5); `memory_bytes_limit` is the smallest limit of our control groups (None: none), `memory_bytes_total`
    what there is within it; `memory_bytes_available` what is free of that now, page cache counted as free.
    """

    core_ids: tuple[int, ...]
    cores: float
    cpu_quota: float | None
    cpu_model: str | None
    memory_bytes_total: int
    memory_bytes_limit: int | None
    memory_bytes_available: int
    cgroup_version: int | None
    cgroup_delegated: bool
    gpus: tuple[Gpu, ...]


def load_hardware(root: Path = Path("/"), core_ids: tuple[int, ...] | None = None) -> HardwareFacts:
    """The facts now. `core_ids` defaults to the affinity of this process."""
    cores = tuple(sorted(os.sched_getaffinity(0))) if core_ids is None else core_ids
    groups = load_cgroups(root)
    quota = _load_quota(groups)
    meminfo = _load_meminfo(root)
    limit, headroom = _load_memory_limit(groups)
    total = meminfo.get("MemTotal", 0)
    available = meminfo.get("MemAvailable", meminfo.get("MemFree", 0))
    return HardwareFacts(
        core_ids=cores,
        cores=float(len(cores)) if quota is None else min(float(len(cores)), quota),
        cpu_quota=quota,
        cpu_model=_load_cpu_model(root),
        memory_bytes_total=total if limit is None else min(total, limit),
        memory_bytes_limit=limit,
        memory_bytes_available=available if headroom is None else max(0, min(available, headroom)),
        cgroup_version=_name_version(groups),
        cgroup_delegated=is_delegated(groups.v2),
        gpus=load_gpus(root),
    )


def _name_version(groups: Cgroups) -> int | None:
    if "memory" in groups.v1 or "cpu" in groups.v1:
        return 1
    return 2 if groups.v2 is not None else None


def _load_quota(groups: Cgroups) -> float | None:
    """Cores by quota: the least of all levels, None when no level has one."""
    quotas: list[float] = []
    if groups.v2 is not None:
        for level in groups.v2.levels():
            words = _read(level / "cpu.max").split()
            if len(words) == 2 and words[0].isdigit() and int(words[1]) > 0:
                quotas.append(int(words[0]) / int(words[1]))
    if "cpu" in groups.v1:
        for level in groups.v1["cpu"].levels():
            quota, period = _read_int(level / "cpu.cfs_quota_us"), _read_int(level / "cpu.cfs_period_us")
            if quota is not None and quota > 0 and period:
                quotas.append(quota / period)
    return min(quotas, default=None)


def _load_memory_limit(groups: Cgroups) -> tuple[int | None, int | None]:
    """(smallest limit, smallest headroom) in bytes over all levels. Page cache that can be dropped is
    headroom.
    """
    limits: list[int] = []
    headrooms: list[int] = []
    if groups.v2 is not None:
        for level in groups.v2.levels():
            found = [_read_int(level / name) for name in ("memory.max", "memory.high")]
            limit = min((one for one in found if one is not None), default=None)
            if limit is not None:
                limits.append(limit)
                headrooms.append(limit - _used(level, "memory.current", "inactive_file"))
    if "memory" in groups.v1:
        for level in groups.v1["memory"].levels():
            limit = _read_int(level / "memory.limit_in_bytes")
            if limit is not None and limit < _UNLIMITED:
                limits.append(limit)
                headrooms.append(limit - _used(level, "memory.usage_in_bytes", "total_inactive_file"))
    return min(limits, default=None), min(headrooms, default=None)


def _used(level: Path, name: str, droppable: str) -> int:
    used = _read_int(level / name) or 0
    for line in _read(level / "memory.stat").splitlines():
        key, _, value = line.partition(" ")
        if key == droppable and value.isdigit():
            used -= int(value)
    return max(0, used)


def _load_meminfo(root: Path) -> dict[str, int]:
    facts: dict[str, int] = {}
    for line in _read(root / "proc/meminfo").splitlines():
        key, _, value = line.partition(":")
        words = value.split()
        if words and words[0].isdigit():
            facts[key] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    return facts


def _load_cpu_model(root: Path) -> str | None:
    for line in _read(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return None


def _read_int(path: Path) -> int | None:
    """The whole number in a file; None for 'max', for nonsense and for no file."""
    with contextlib.suppress(ValueError):
        return int(_read(path))
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
