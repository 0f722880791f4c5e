"""Where this process stands in the control groups of versions 1 and 2, and weights for replicas in a
delegated one.

All reads go through a root folder, so that tests hand in a tree of their own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_MAIN = "main"
_MAIN_WEIGHT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Cgroup:
    """One control group: its folder, and the mount it lies under (limits hold on every level between)."""

    path: Path
    mount: Path

    def levels(self) -> Iterator[Path]:
        """This group's folder and those above it, up to the mount."""
        here = self.path
        while True:
            if here.is_dir():
                yield here
            if here == self.mount or here == here.parent:
                return
            here = here.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Cgroups:
    """All groups of this process: the one of version 2, and those of version 1 by controller."""

    v2: Cgroup | None = None
    v1: dict[str, Cgroup] = field(default_factory=dict[str, Cgroup])


def load_cgroups(root: Path = Path("/")) -> Cgroups:
    """The control groups of this process as /proc tells them; empty where there are none."""
    mounts = list(_load_mounts(root))
    v2: Cgroup | None = None
    v1: dict[str, Cgroup] = {}
    for line in _lines(root / "proc/self/cgroup"):
        number, controllers, path = line.split(":", 2)
        names = [] if number == "0" and not controllers else controllers.split(",")
        for kind, options, inside, mount in mounts:
            if not names and kind == "cgroup2":
                v2 = Cgroup(path=_below(mount, inside, path), mount=mount)
            for name in names:
                if kind == "cgroup" and name in options:
                    v1[name] = Cgroup(path=_below(mount, inside, path), mount=mount)
    return Cgroups(v2=v2, v1=v1)


def is_delegated(group: Cgroup | None) -> bool:
    """Whether this version 2 group is ours to divide: writable, with the cpu controller, and handed to us.

    Why writable is not enough: root can write everywhere, but a service manager that did not delegate a group
    will undo what others do in it. It marks those it delegated with an attribute. Source:
    systemd.resource-control(5).
    """
    base = _base(group)
    if base is None or group is None or base == group.mount:
        return False
    if "cpu" not in " ".join(_lines(base / "cgroup.controllers")).split():
        return False
    if not all(os.access(base / name, os.W_OK) for name in ("cgroup.procs", "cgroup.subtree_control")):
        return False
    return os.geteuid() != 0 or _is_marked(base)


class ReplicaWeights:
    """Shares of the processor by weight: one group per replica inside our delegated group."""

    def __init__(self, base: Path) -> None:
        self._base = base

    @classmethod
    def prepare(cls, group: Cgroup | None) -> ReplicaWeights | None:
        """Ready the delegated group, our own processes in a leaf of it; None where that cannot be done.

        Why a leaf: a version 2 group that shares out a controller may hold no processes itself.
        """
        base = _base(group)
        if base is None or not is_delegated(group):
            return None
        try:
            (base / _MAIN).mkdir(exist_ok=True)
            for pid in _lines(base / "cgroup.procs"):
                with contextlib.suppress(ProcessLookupError):
                    (base / _MAIN / "cgroup.procs").write_text(pid)
            (base / "cgroup.subtree_control").write_text("+cpu")
            (base / _MAIN / "cpu.weight").write_text(str(_MAIN_WEIGHT))
        except OSError:
            return None
        return cls(base)

    def place(self, pid: int, replica: str, share: float) -> bool:
        """Give process `pid` a weight by `share` (1.0 is 100, the usual). False where the kernel refused."""
        folder = self._base / f"replica-{replica}"
        try:
            folder.mkdir(exist_ok=True)
            (folder / "cpu.weight").write_text(str(min(10000, max(1, round(share * 100)))))
            (folder / "cgroup.procs").write_text(str(pid))
        except OSError:
            return False
        return True

    def remove(self, replica: str) -> None:
        """Remove the group of a replica that has ended."""
        with contextlib.suppress(OSError):
            (self._base / f"replica-{replica}").rmdir()


def _base(group: Cgroup | None) -> Path | None:
    if group is None:
        return None
    return group.path.parent if group.path.name == _MAIN else group.path


def _is_marked(path: Path) -> bool:
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(path, name) == b"1":
                return True
    return False


def _load_mounts(root: Path) -> Iterator[tuple[str, set[str], str, Path]]:
    """(kind, options, the group that the mount shows, mount point) of each control group mount."""
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(), after.split()
        if len(fields) >= 5 and len(kinds) >= 3 and kinds[0] in ("cgroup", "cgroup2"):
            yield kinds[0], set(kinds[2].split(",")), fields[3], root / fields[4].lstrip("/")


def _below(mount: Path, inside: str, path: str) -> Path:
    """The folder of group `path` under a mount that shows group `inside`."""
    if inside != "/" and (path == inside or path.startswith(inside + "/")):
        path = path[len(inside) :]
    if path.startswith("/.."):  # outside of what this mount shows: its top is the nearest we can see
        path = ""
    return mount / path.lstrip("/")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
