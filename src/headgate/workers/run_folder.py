"""The folder of a house's sockets and records where it lies away from the state folder: it goes when the house does.

Follows no link, looks at everything before it removes anything, and leaves all of it where something is not ours.
Standard library only: the supervisor loads it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path

_RECORDS = ("lock", "spec.json", "supervisor.json", "exits.jsonl")
_METRICS = "metrics"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_run_folder(top: Path) -> bool:
    """Whether `top`, its `run` and what the house left there are gone now.

    Both stay, with everything in them, when one of them belongs to another user, is open to others or a link, or holds
    anything but records of ours and sockets that nobody listens on. To be called while the house's lock is held.
    """
    with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
        outer = _open_own(opened, str(top))
        if _names(outer) == ["run"]:
            inner = _open_own(opened, "run", outer)
            metrics = _open_own(opened, _METRICS, inner) if _METRICS in _names(inner) else None
            if not all(_is_ours(inner, name) for name in _names(inner)):
                return False
            if metrics is not None:
                if not all(_is_count(metrics, name) for name in _names(metrics)):
                    return False
                _clear(metrics)
                os.rmdir(_METRICS, dir_fd=inner)
            _clear(inner)
            os.rmdir("run", dir_fd=outer)
        top.rmdir()  # refused by the kernel when it is a link, or not empty
        return True
    return False


def _open_own(opened: contextlib.ExitStack, path: str, within: int | None = None) -> int:
    """A descriptor of the folder at `path`, closed with `opened`. Raises OSError unless it is ours alone."""
    handle = os.open(path, _FOLDER, dir_fd=within)
    opened.callback(os.close, handle)
    found = os.fstat(handle)
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(f"{path} is not this user's alone")
    return handle


def _names(folder: int) -> list[str]:
    return os.listdir(folder)


def _clear(folder: int) -> None:
    for name in _names(folder):
        os.unlink(name, dir_fd=folder)


def _is_ours(folder: int, name: str) -> bool:
    mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    if stat.S_ISSOCK(mode):
        return _is_stale(folder, name)
    if stat.S_ISREG(mode):
        record = name.removesuffix(".new")  # a write that was cut short leaves one
        return record in _RECORDS or (record.startswith("replica-") and record.endswith(".json"))
    return name == _METRICS


def _is_count(folder: int, name: str) -> bool:
    return stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode) and name.endswith(".db")


def _is_stale(folder: int, name: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.setblocking(False)
        try:
            probe.connect(f"/proc/self/fd/{folder}/{name}")
        except ConnectionRefusedError:
            return True
        except OSError:  # a full backlog: somebody listens, but slowly
            return False
    return False
