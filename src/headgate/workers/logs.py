"""Keeping log files small: rotation by size, and logs of replicas that are no more.

Copy, then truncate: every process appends to its file and goes on doing so without being told. What is
written in the microseconds between the last copy and the truncation is lost; that is the price of not asking
anybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Collection
from pathlib import Path

from headgate.core.clock import Clock
from headgate.workers.settings import WorkerSettings

_CHUNK = 1 << 20


def rotate_log(path: Path, *, limit_bytes: int, keep: int) -> bool:
    """Whether the log at `path` had reached `limit_bytes` and was rotated: its content is in PATH.1 now, what
    was there in PATH.2, and so on up to `keep` files. Links are left alone. Raises OSError.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if os.fstat(handle).st_size < limit_bytes:
            return False
        if keep > 0:
            for number in range(keep - 1, 0, -1):
                with contextlib.suppress(FileNotFoundError):
                    _numbered(path, number).replace(_numbered(path, number + 1))
            _copy(handle, _numbered(path, 1))
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)
    return True


def rotate_logs(folder: Path, *, limit_bytes: int, keep: int) -> list[Path]:
    """Rotate every *.log in `folder` that is due; those that were. One that cannot be rotated is tried next
    time.
    """
    rotated: list[Path] = []
    for path in sorted(folder.glob("*.log")):
        with contextlib.suppress(OSError):
            if rotate_log(path, limit_bytes=limit_bytes, keep=keep):
                rotated.append(path)
    return rotated


def prune_replica_logs(folder: Path, live: Collection[str], keep: int) -> list[str]:
    """Remove the logs of replicas that are not `live`, but for the `keep` newest; the ids of those removed."""
    ended: list[tuple[float, str]] = []
    for path in folder.glob("replica-*.log"):
        replica = path.name.removeprefix("replica-").removesuffix(".log")
        if replica not in live:
            with contextlib.suppress(OSError):
                ended.append((path.stat().st_mtime, replica))
    removed = [replica for _, replica in sorted(ended, reverse=True)[keep:]]
    for replica in removed:
        for path in folder.glob(f"replica-{replica}.log*"):
            with contextlib.suppress(OSError):
                path.unlink()
    return removed


async def keep_logs_small(
    folder: Path,
    settings: WorkerSettings,
    clock: Clock,
    live: Callable[[], Collection[str]],
    every_s: float = 30.0,
) -> None:
    """Rotate and prune every `every_s` seconds until cancelled. `live` tells the ids of running replicas."""
    while True:
        await clock.sleep(every_s)
        await asyncio.to_thread(rotate_logs, folder, limit_bytes=settings.log_bytes, keep=settings.log_keep)
        await asyncio.to_thread(prune_replica_logs, folder, set(live()), settings.log_replicas)


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _copy(source: int, target: Path) -> None:
    """Copy until there is nothing more to read, what was appended meanwhile included."""
    output = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        while chunk := os.read(source, _CHUNK):
            os.write(output, chunk)
    finally:
        os.close(output)
