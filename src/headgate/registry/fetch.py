"""Brings the bytes of a source into staging: copies local ones, downloads far ones, checks what was pinned."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, cast

from headgate.core.errors import ModelRefused
from headgate.registry.blobs import BlobStore
from headgate.registry.download import Downloader, Reach, Remote, check_sha256, source_key
from headgate.registry.folder import list_folder
from headgate.registry.gguf import read_gguf
from headgate.registry.gguf_facts import split_of
from headgate.registry.hub import look_up
from headgate.registry.settings import RegistrySettings
from headgate.registry.sniff import refusal, sniff
from headgate.registry.sources import BundledSource, HubSource, LocalSource, WebSource
from headgate.registry.staging import Progress, StagedFile, Staging, no_progress

SPLIT_NAME = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<count>\d{5})\.gguf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """Bytes in staging. `is_folder` says that the version is a folder of `files`, even when there is one only."""

    files: tuple[StagedFile, ...]
    is_folder: bool
    origin: str
    licence: str | None = None
    left_out: tuple[str, ...] = ()


class Fetcher:
    """Fetches sources that have bytes."""

    def __init__(self, blobs: BlobStore, downloader: Downloader, settings: RegistrySettings) -> None:
        self._blobs, self._downloader, self._settings = blobs, downloader, settings

    def fetch(
        self,
        source: LocalSource | HubSource | WebSource | BundledSource,
        staging: Staging,
        *,
        extra_hosts: tuple[str, ...] = (),
        progress: Progress = no_progress,
    ) -> Fetched:
        """The bytes of `source` in `staging`. `extra_hosts` may be spoken to besides those of the settings.

        Raises ModelRefused.
        """
        match source:
            case LocalSource():
                return self._local(source.path, staging, progress)
            case BundledSource():
                return self._bundled(source.name, staging, progress)
            case HubSource():
                return self._hub(source, staging, extra_hosts, progress)
            case WebSource():
                return self._web(source, staging, extra_hosts, progress)

    def _local(self, path: Path, staging: Staging, progress: Progress) -> Fetched:
        path = path.absolute()
        origin = f"file:{path}"
        if path.is_dir():
            ggufs = sorted(entry for entry in path.iterdir() if entry.suffix.lower() == ".gguf")
            if ggufs and not any(path.glob("*.safetensors")):
                return self._local(_one_model(path, ggufs), staging, progress)
            files = list_folder(path)
            return self._copy(path, files.taken, staging, origin, progress, files.left_out)
        kind = sniff(path)  # before gigabytes are copied; what counts is the copy, which intake reads again
        if kind not in ("gguf", "safetensors"):
            raise refusal(path.name, kind)
        names = _parts(path) if kind == "gguf" else (path.name,)
        if len(names) > 1:
            return self._copy(path.parent, names, staging, origin, progress)
        if kind == "safetensors":
            return self._copy(path.parent, names, staging, origin, progress, is_folder=False)
        file = staging.copy_in(path, "model.gguf", max_bytes=self._settings.max_model_bytes, progress=progress)
        return Fetched(files=(file,), is_folder=False, origin=origin)

    def _copy(
        self,
        root: Path,
        names: tuple[str, ...],
        staging: Staging,
        origin: str,
        progress: Progress,
        left_out: tuple[str, ...] = (),
        *,
        is_folder: bool = True,
    ) -> Fetched:
        room = self._settings.max_model_bytes
        files: list[StagedFile] = []
        for name in names:
            files.append(staging.copy_in(root / name, name, max_bytes=room, progress=progress))
            room -= files[-1].bytes
        return Fetched(files=tuple(files), is_folder=is_folder, origin=origin, left_out=left_out)

    def _bundled(self, name: str, staging: Staging, progress: Progress) -> Fetched:
        entry = next((entry for entry in load_bundled() if entry.get("name") == name), None)
        if entry is None:
            known = ", ".join(str(entry.get("name")) for entry in load_bundled()) or "none"
            raise ModelRefused(f"There is no bundled model {name!r}. There are: {known}.", param="source")
        with resources.as_file(resources.files("headgate.registry") / "bundled" / str(entry["file"])) as path:
            if not path.exists():
                raise ModelRefused(
                    f"The bundled model {name!r} is missing from this installation. Install Headgate again."
                )
            fetched = self._local(path, staging, progress)
        check_sha256(_bundled_sha256(fetched), str(entry["sha256"]), f"The bundled model {name!r}")
        return Fetched(
            files=fetched.files,
            is_folder=fetched.is_folder,
            origin=f"bundled:{name}",
            licence=str(entry.get("licence") or "") or None,
        )

    def _hub(self, source: HubSource, staging: Staging, extra_hosts: tuple[str, ...], progress: Progress) -> Fetched:
        hosts = (*self._settings.hub_hosts, *self._settings.allowed_hosts, *extra_hosts)
        reach = Reach(hosts=hosts, setting="registry.hub_hosts")
        progress("asking the hub", 0, None)
        first, licence, files = "", None, list[StagedFile]()
        names = _split_names(source.file)
        for name in names:
            # Why the first part's commit for all: parts of two commits would not fit together.
            revision = source.revision if not first else first.partition("@")[2].partition("/")[0]
            part = HubSource(owner=source.owner, repo=source.repo, revision=revision, file=name)
            found = look_up(part, reach, timeout_s=self._settings.connect_timeout_s)
            first, licence = first or found.origin(part), licence or found.licence
            local = Path(name).name if len(names) > 1 else _local_name(name)
            files.append(self._download(found.remote, local, staging, reach, progress))
        return Fetched(files=tuple(files), is_folder=len(names) > 1, origin=first, licence=licence)

    def _web(self, source: WebSource, staging: Staging, extra_hosts: tuple[str, ...], progress: Progress) -> Fetched:
        reach = Reach(hosts=(*self._settings.allowed_hosts, *extra_hosts))
        name = _local_name(source.url.partition("?")[0])
        file = self._download(Remote(url=source.url, sha256=source.sha256), name, staging, reach, progress)
        # Why without its query: a signed link holds a secret.
        return Fetched(files=(file,), is_folder=False, origin=source.url.partition("?")[0])

    def _download(self, remote: Remote, name: str, staging: Staging, reach: Reach, progress: Progress) -> StagedFile:
        reach.check(remote.url)
        kept = self._blobs.path_of(f"sha256:{remote.sha256}") if remote.sha256 else None
        if kept is not None and kept.is_file():
            file = staging.copy_in(kept, name, max_bytes=self._settings.max_model_bytes, progress=progress)
            if file.sha256 == remote.sha256:
                return file
            file.path.unlink()  # damaged: fetched again, which heals it
        with ExitStack() as stack:
            folder = stack.enter_context(self._blobs.continued(source_key(remote)))
            path = self._downloader.fetch(remote, folder, reach, progress)
            kind = sniff(path)
            file = staging.adopt(path, name, progress=progress)
            self._blobs.forget(folder)
        check_sha256(file.sha256, remote.sha256, name)
        if kind not in ("gguf", "safetensors"):
            raise refusal(name, kind)
        return file


def load_bundled() -> list[dict[str, Any]]:
    """The models that come with Headgate, as their index describes them."""
    try:
        text = (resources.files("headgate.registry") / "bundled" / "index.json").read_text()
    except FileNotFoundError:
        return []
    return [cast(dict[str, Any], entry) for entry in json.loads(text)]


def _bundled_sha256(fetched: Fetched) -> str:
    """A folder's index entry has the SHA-256 of its files' `sha256sum` lines, sorted by name."""
    if not fetched.is_folder:
        return fetched.files[0].sha256
    lines = "".join(f"{file.sha256}  {file.name}\n" for file in sorted(fetched.files, key=lambda file: file.name))
    return hashlib.sha256(lines.encode()).hexdigest()


def _one_model(folder: Path, ggufs: list[Path]) -> Path:
    """The one GGUF model in `folder`: its only file, or the first part of its only split."""
    stems: Mapping[str, Path] = {
        (match["stem"] if (match := SPLIT_NAME.fullmatch(path.name)) else path.name): path for path in reversed(ggufs)
    }
    if len(stems) > 1:
        raise ModelRefused(
            f"{folder.name} has {len(stems)} GGUF models. Name the file of the one you mean.", param="source"
        )
    return next(iter(stems.values()))


def _parts(path: Path) -> tuple[str, ...]:
    """Names of all parts of the model that `path` is or belongs to, in order. Raises ModelRefused when one misses."""
    number, count = split_of(read_gguf(path))
    if count == 1:
        return (path.name,)
    match = SPLIT_NAME.fullmatch(path.name)
    if match is None or (int(match["part"]), int(match["count"])) != (number + 1, count):
        raise ModelRefused(
            f"{path.name} is part {number + 1} of {count} of a split model, but its name does not say so. "
            f"Give the parts their names back (NAME-{number + 1:05d}-of-{count:05d}.gguf).",
            param="source",
        )
    names = _split_names(path.name)
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        raise ModelRefused(
            f"{path.name} is part {number + 1} of {count} of a split model, and {len(missing)} parts are missing: "
            f"{', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}. Put all parts into one folder.",
            param="source",
        )
    return names


def _split_names(name: str) -> tuple[str, ...]:
    """Names of all parts of a split when `name` is one of them by its name; else only `name`."""
    match = SPLIT_NAME.fullmatch(name)
    count = int(match["count"]) if match else 0
    if match is None or not 1 < count <= 1000:
        return (name,)
    return tuple(f"{match['stem']}-{part:05d}-of-{count:05d}.gguf" for part in range(1, count + 1))


def _local_name(name: str) -> str:
    return "model.safetensors" if name.lower().endswith(".safetensors") else "model.gguf"
