"""Bytes on their way in: copied or taken over into one folder, hashed, held to limits. Not yet kept."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headgate.core.errors import ModelRefused
from headgate.core.units import format_bytes

CHUNK_BYTES = 8 * 2**20
SPARE_BYTES = 64 * 2**20  # left free on the disk, so that the database beside the models can still be written

Progress = Callable[[str, int, int | None], None]
"""Told what is being done ('copying', 'downloading', ...), how many bytes of it are done, and of how many if known."""


def no_progress(_what: str, _done: int, _total: int | None) -> None:
    """A Progress that shows nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedFile:
    """One file whose bytes are in the staging folder, hashed. `name` is its name in the version, '/' between parts."""

    name: str
    path: Path
    sha256: str
    bytes: int


class Staging:
    """One folder of bytes on their way in, on the same file system as the blobs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def place(self, name: str) -> Path:
        """The path for a file of that name. Raises ModelRefused for a name that would leave the folder."""
        check_name(name)
        path = self.folder / "files" / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def copy_in(self, source: Path, name: str, *, max_bytes: int, progress: Progress = no_progress) -> StagedFile:
        """Copy a local file, hashing what was written. The store owns its copy: the source may change later.

        Raises ModelRefused: unreadable, too large, changed while it was copied, or no room on the disk.
        """
        path = self.place(name)
        try:
            with source.open("rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                check_room(self.folder, size, max_bytes, name)
                with path.open("xb+", buffering=0) as copy:
                    sha256 = _copy(file.fileno(), copy.fileno(), size, name, progress)
                    os.fsync(copy.fileno())
                if os.fstat(file.fileno()).st_size != size:
                    raise ModelRefused(f"{name} changed while it was copied. Add it again when nothing writes to it.")
        except OSError as error:
            raise _explain(error, name) from None
        return StagedFile(name=name, path=path, sha256=sha256, bytes=size)

    def adopt(self, source: Path, name: str, *, progress: Progress = no_progress) -> StagedFile:
        """Take over a downloaded file that lies on the same file system, hashing it."""
        path = self.place(name)
        source.replace(path)
        with path.open("rb", buffering=0) as file:
            os.fsync(file.fileno())
        return StagedFile(name=name, path=path, sha256=hash_file(path, progress), bytes=path.stat().st_size)


def manifest_of(files: Iterable[StagedFile]) -> bytes:
    """The canonical manifest: JSON with sorted keys and no spaces."""
    table = {file.name: {"bytes": file.bytes, "sha256": file.sha256} for file in files}
    return canonical_json(table)


def canonical_json(value: Mapping[str, Any]) -> bytes:
    """JSON that is the same bytes for the same value: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest_of(content: bytes) -> str:
    """'sha256:' and the hexadecimal SHA-256 of `content`."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def hash_file(path: Path, progress: Progress = no_progress) -> str:
    """The hexadecimal SHA-256 of the file at `path`."""
    hasher, done = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        while chunk := file.read(CHUNK_BYTES):
            hasher.update(chunk)
            done += len(chunk)
            progress("checking", done, size)
    return hasher.hexdigest()


def check_name(name: str) -> None:
    """Return when `name` is a plain relative path that stays where it is put. Raises ModelRefused."""
    parts = name.split("/")
    plain = all(part and not part.startswith(".") and len(part.encode()) <= 200 for part in parts)
    if not plain or len(parts) > 4 or any(ord(letter) < 32 or letter in "\\\x7f" for letter in name):
        raise ModelRefused(f"The file name {name[:100]!r} is not usable in a model. Rename the file.")


def check_room(folder: Path, size: int, max_bytes: int, name: str) -> None:
    """Return when `size` more bytes are allowed and fit on the disk of `folder`. Raises ModelRefused."""
    if size > max_bytes:
        raise ModelRefused(
            f"{name} has {format_bytes(size)}, more than the {format_bytes(max_bytes)} that are allowed. "
            "Take a smaller model or raise registry.max_model_bytes."
        )
    missing = size + SPARE_BYTES - shutil.disk_usage(folder).free
    if missing > 0:
        raise ModelRefused(
            f"{name} does not fit on the disk of {folder.parent.parent}: {format_bytes(missing)} are missing. "
            "Free some space or move the state folder."
        )


def _copy(source: int, target: int, size: int, name: str, progress: Progress) -> str:
    """Copy in the kernel where it can (which shares the blocks on btrfs and xfs), hashing what arrived."""
    hasher, done, in_kernel = hashlib.sha256(), 0, True
    while done < size:
        count = 0
        if in_kernel:
            try:
                count = os.copy_file_range(source, target, min(CHUNK_BYTES, size - done), done, done)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                    raise
            in_kernel = count > 0
        chunk = os.pread(target, count, done) if count else os.pread(source, min(CHUNK_BYTES, size - done), done)
        if not chunk:
            raise ModelRefused(f"{name} became shorter while it was copied. Add it again when nothing writes to it.")
        if not count:
            _write_all(target, chunk, done)
        hasher.update(chunk)
        done += len(chunk)
        progress("copying", done, size)
    return hasher.hexdigest()


def _write_all(target: int, chunk: bytes, at: int) -> None:
    view = memoryview(chunk)
    while view:
        written = os.pwrite(target, view, at)
        view, at = view[written:], at + written


def _explain(error: OSError, name: str) -> ModelRefused:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ModelRefused(f"The disk became full while {name} was copied. Free some space and add it again.")
    return ModelRefused(f"{name} cannot be copied: {error.strerror}. Check that it is there and readable.")
