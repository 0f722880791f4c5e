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
from collections.abc import Collection, Generator, Iterable
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from headgate.core.errors import ModelRefused
from headgate.core.ids import Ids
from headgate.registry.staging import Progress, StagedFile, Staging, digest_of, hash_file, manifest_of, no_progress

MAX_MANIFEST_BYTES = 8 * 2**20
PARTIAL_DAYS = 7

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


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
        with ExitStack() as stack:
            with self.locked():  # until its own lock is held, a sweep would take the new folder for a dead one
                folder = self._staging / self._ids.new()
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
            descriptor = _take_lock(folder / ".lock", wait=True)
            if descriptor is None:
                continue  # whoever had the folder before has finished and deleted it
            try:
                yield folder
                return
            finally:
                os.close(descriptor)

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
        links = {place / file.name: self._blobs / file.sha256 for file in files}
        if not all(link.exists() and link.samefile(blob) for link, blob in links.items()):
            self._build_folder(place, files)
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

    def _build_folder(self, place: Path, files: list[StagedFile]) -> None:
        """Make the folder of links, also in the place of a damaged one."""
        forming = self._folders / f".{self._ids.new()}"
        for file in files:
            target = forming / file.name
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _link(self._blobs / file.sha256, target)
        for folder in {forming, *((forming / file.name).parent for file in files)}:
            _sync_folder(folder)
        if place.exists():
            place.rename(forming.with_name(forming.name + ".old"))  # swept with the other leavings
        forming.rename(place)
        _sync_folder(self._folders)

    def _keep_bytes(self, content: bytes) -> None:
        sha256 = hashlib.sha256(content).hexdigest()
        place = self._blobs / sha256
        if _is_kept(place, len(content)) and place.read_bytes() == content:
            return
        temporary = self._staging / f".{self._ids.new()}"
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o444)
        temporary.replace(place)
        _sync_folder(self._blobs)


@contextmanager
def _lock(path: Path, *, wait: bool) -> Generator[None]:
    """Hold the lock file. Raises BlockingIOError when another has it and this is not to wait, or it is gone."""
    descriptor = _take_lock(path, wait=wait)
    if descriptor is None:
        raise BlockingIOError(errno.EWOULDBLOCK, "gone", str(path))
    try:
        yield
    finally:
        os.close(descriptor)


def _take_lock(path: Path, *, wait: bool) -> int | None:
    """The descriptor that holds the lock; None when its folder was deleted, maybe while this waited."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except FileNotFoundError:
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


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
