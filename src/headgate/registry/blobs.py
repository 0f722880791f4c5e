"""The content-addressed store of model bytes: what lies where, under which digest, kept once, safe against crashes.

    blobs/sha256/<hex>            one file, read-only, named by its SHA-256
    folders/sha256/<hex>/...      a version that is a folder: hard links to blobs, named by its manifest's digest
    staging/<id>/                 bytes on their way in; a lock held by their writer says that they are alive
    partial/<key>/                downloads that may be continued

A folder's manifest is itself a blob: canonical JSON, name -> sha256 and bytes. Knows nothing of models or rows: who
refers to a digest is told by the caller.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headgate.core.errors import ModelRefused
from headgate.core.ids import Ids
from headgate.core.units import format_bytes

CHUNK_BYTES = 8 * 2**20
SPARE_BYTES = 64 * 2**20  # left free on the disk, so that the database beside the models can still be written
MAX_MANIFEST_BYTES = 8 * 2**20
PARTIAL_DAYS = 7

Progress = Callable[[str, int, int | None], None]
"""Told what is being done ('copying', 'downloading', ...), how many bytes of it are done, and of how many if known."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def no_progress(_what: str, _done: int, _total: int | None) -> None:
    """A Progress that shows nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedFile:
    """One file whose bytes are in the staging folder, hashed. `name` is its name in the version, '/' between parts."""

    name: str
    path: Path
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """One file whose bytes are not what they were. `name` is its name in the version, `path` where it lies."""

    name: str
    path: str
    what: str


class BlobStore:
    """The store under one folder, on one file system. Several processes may use it at once."""

    def __init__(self, root: Path, ids: Ids) -> None:
        self.root = root
        self._ids = ids
        self._blobs, self._folders = root / "blobs" / "sha256", root / "folders" / "sha256"
        self._staging, self.partial = root / "staging", root / "partial"
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self._blobs, self._folders, self._staging, self.partial):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def locked(self) -> Generator[None]:
        """Alone among all processes: taken for the moment of committing, removing and sweeping."""
        with _lock(self.root / "lock", wait=True):
            yield

    @contextmanager
    def stage(self) -> Generator[Staging]:
        """A folder for bytes on their way in. Whatever is still in it at the end is deleted."""
        folder = self._staging / self._ids.new()
        with ExitStack() as stack:
            with self.locked():  # until its own lock is held, a sweep would take the new folder for a dead one
                folder.mkdir(mode=0o700)
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
                stack.enter_context(_lock(folder / ".lock", wait=True))
            yield Staging(folder)

    @contextmanager
    def continued(self, key: str) -> Generator[Path]:
        """The folder of an interrupted download, this process alone in it. It stays until the download is adopted."""
        folder = self.partial / hashlib.sha256(key.encode()).hexdigest()[:32]
        while True:
            folder.mkdir(mode=0o700, exist_ok=True)
            with suppress(FileNotFoundError), _lock(folder / ".lock", wait=True):
                # Why asked again: whoever held the lock before may have finished and deleted the folder.
                if (folder / ".lock").exists():
                    yield folder
                    return

    def forget(self, folder: Path) -> None:
        """Delete the folder of a download that has been adopted."""
        shutil.rmtree(folder, ignore_errors=True)

    def path_of(self, digest: str, *, folder: bool = False) -> Path:
        """Where the bytes of `digest` lie or would lie. Raises ValueError when it is no digest."""
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"{digest[:80]!r} is not sha256: and 64 hexadecimal digits")
        return (self._folders if folder else self._blobs) / digest.removeprefix("sha256:")

    def keep_file(self, file: StagedFile) -> Path:
        """Move a staged file to its place, or drop it when the same bytes are there. Call under `locked`."""
        place = self._blobs / file.sha256
        # Why hashed again: adding a model anew is how a damaged copy is healed.
        if _is_kept(place, file.bytes) and hash_file(place) == file.sha256:
            file.path.unlink(missing_ok=True)
            return place
        file.path.chmod(0o444)
        file.path.replace(place)
        _sync_folder(self._blobs)
        return place

    def keep_folder(self, files: Iterable[StagedFile]) -> tuple[str, Path]:
        """Keep files as one folder; its digest and place. Call under `locked`."""
        files = sorted(files, key=lambda file: file.name)
        manifest = manifest_of(files)
        digest = digest_of(manifest)
        place = self.path_of(digest, folder=True)
        for file in files:
            self.keep_file(file)
        self._keep_bytes(manifest)
        if not place.exists():
            forming = self._folders / f".{self._ids.new()}"
            for file in files:
                target = forming / file.name
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _link(self._blobs / file.sha256, target)
            for folder in {forming, *((forming / file.name).parent for file in files)}:
                _sync_folder(folder)
            forming.rename(place)
            _sync_folder(self._folders)
        return digest, place

    def load_manifest(self, digest: str) -> dict[str, tuple[str, int]]:
        """Name -> (sha256, bytes) of a folder version. Raises ModelRefused when the manifest is missing or damaged."""
        path = self.path_of(digest)
        try:
            with path.open("rb") as file:
                text = file.read(MAX_MANIFEST_BYTES + 1)
        except OSError:
            raise ModelRefused(
                f"The manifest of {digest} is missing from {path}. Remove the model and add it again."
            ) from None
        if digest_of(text) != digest:
            raise ModelRefused(f"The manifest {path} is damaged. Remove the model and add it again.")
        return {name: (entry["sha256"], entry["bytes"]) for name, entry in json.loads(text).items()}

    def verify(self, digest: str, *, folder: bool = False, progress: Progress = no_progress) -> list[Damage]:
        """Hash all bytes of a version again; what is damaged or missing, by file. Empty when all is well."""
        if not folder:
            place = self.path_of(digest)
            return _damage(place.name, place, digest.removeprefix("sha256:"), progress)
        try:
            manifest = self.load_manifest(digest)
        except ModelRefused as error:
            return [Damage(name="manifest", path=str(self.path_of(digest)), what=error.message)]
        place = self.path_of(digest, folder=True)
        damages = [
            damage for name, (sha256, _) in manifest.items() for damage in _damage(name, place / name, sha256, progress)
        ]
        present = {str(path.relative_to(place)) for path in place.rglob("*") if not path.is_dir()}
        damages += [
            Damage(name=name, path=str(place / name), what="was put there by someone else")
            for name in sorted(present - set(manifest))
        ]
        return damages

    def drop_unreferenced(self, files: Collection[str], folders: Collection[str]) -> int:
        """Delete all blobs and folders but those of the given digests; bytes freed. Call under `locked`.

        This is the reference count: the caller passes every digest that a version row has.
        """
        kept = {digest.removeprefix("sha256:") for digest in files}
        kept_folders = {digest.removeprefix("sha256:") for digest in folders}
        for digest in folders:
            kept.add(digest.removeprefix("sha256:"))
            # Why not ignored: without the manifest its blobs would be taken for nobody's.
            kept |= {sha256 for sha256, _ in self.load_manifest(digest).values()}
        for entry in self._folders.iterdir():
            if entry.name not in kept_folders:
                shutil.rmtree(entry, ignore_errors=True)
        freed = 0
        for entry in self._blobs.iterdir():
            if entry.name not in kept:
                freed += entry.stat().st_size
                entry.unlink(missing_ok=True)
        return freed

    def sweep(self, *, now: float) -> int:
        """Delete what crashed processes left in staging, and downloads that nobody continued for a week.

        `now` is in seconds since the epoch. What a living process works on is not touched. Returns how many went.
        Call under `locked`.
        """
        swept = 0
        for entry in (*self._staging.iterdir(), *self.partial.iterdir()):
            if not entry.is_dir():
                entry.unlink(missing_ok=True)
                swept += 1
                continue
            if entry.parent == self.partial and entry.stat().st_mtime > now - PARTIAL_DAYS * 86_400:
                continue
            with suppress(BlockingIOError), _lock(entry / ".lock", wait=False):
                shutil.rmtree(entry, ignore_errors=True)
                swept += 1
        return swept

    def _keep_bytes(self, content: bytes) -> None:
        sha256 = hashlib.sha256(content).hexdigest()
        place = self._blobs / sha256
        if _is_kept(place, len(content)):
            return
        temporary = self._staging / f".{self._ids.new()}"
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o444)
        temporary.replace(place)
        _sync_folder(self._blobs)


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


@contextmanager
def _lock(path: Path, *, wait: bool) -> Generator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


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


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EXDEV):
            raise
        shutil.copyfile(source, target)  # a file system without hard links keeps the bytes twice
        target.chmod(0o444)


def _is_kept(place: Path, size: int) -> bool:
    try:
        return place.stat().st_size == size
    except OSError:
        return False


def _damage(name: str, path: Path, sha256: str, progress: Progress) -> list[Damage]:
    try:
        found = hash_file(path, progress)
    except OSError as error:
        return [Damage(name=name, path=str(path), what=f"cannot be read: {error.strerror}")]
    return [] if found == sha256 else [Damage(name=name, path=str(path), what="has other bytes than when it was added")]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explain(error: OSError, name: str) -> ModelRefused:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ModelRefused(f"The disk became full while {name} was copied. Free some space and add it again.")
    return ModelRefused(f"{name} cannot be copied: {error.strerror}. Check that it is there and readable.")
