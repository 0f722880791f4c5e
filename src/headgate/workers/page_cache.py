"""What the page cache holds of models' files: read ahead for those that may be woken, forgotten for those that may not.

It is the kernel's: what is said here is advice, and memory that processes want it takes back unasked.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Collection, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

log = logging.getLogger(__name__)


class PageCache:
    """The files that shall be in it. Disks are asked by a thread of its own, one file after the other."""

    def __init__(self) -> None:
        self._kept: frozenset[Path] = frozenset()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="page-cache")

    def keep(self, paths: Collection[Path]) -> None:
        """Have these files (or folders of files) in memory from now on, and those not that were to be before."""
        kept = frozenset(paths)
        for path in sorted(self._kept - kept):
            self._thread.submit(_drop, path)
        for path in sorted(kept - self._kept):
            self._thread.submit(_read, path)
        self._kept = kept

    def close(self, *, wait: bool = False) -> None:
        """Begin nothing more, or do first what was said."""
        self._thread.shutdown(wait=wait, cancel_futures=not wait)


def read_ahead(path: Path) -> None:
    """Have the kernel read the file, or all files under the folder, into the page cache. Raises OSError."""
    for file in _files(path):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def drop_cached(path: Path) -> bool:
    """Have the page cache forget the file, or all files under the folder; whether it has."""
    dropped = True
    for file in _files(path):
        with file.open("rb") as opened:
            os.fdatasync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            dropped = dropped and not _is_cached(opened.fileno())
    return dropped


def _files(path: Path) -> Iterator[Path]:
    return (file for file in path.rglob("*") if file.is_file()) if path.is_dir() else iter((path,))


def _is_cached(descriptor: int) -> bool:
    """Whether the file's first byte could be read without a disk."""
    try:
        return os.preadv(descriptor, [bytearray(1)], 0, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False
    except OSError:  # this file system does not say
        return True


def _drop(path: Path) -> None:
    with _forgiving(path):
        drop_cached(path)


def _read(path: Path) -> None:
    with _forgiving(path):
        read_ahead(path)


@contextlib.contextmanager
def _forgiving(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        log.info("the page cache could not be told of %s: %s", path.name, error.strerror)
