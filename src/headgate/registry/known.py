"""Whether a version that is kept already is what a source names, told without fetching anything."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headgate.core.model import Version
from headgate.registry.fetch import load_bundled
from headgate.registry.intake import judge_fake
from headgate.registry.sources import (
    BundledSource,
    EndpointSource,
    FakeSource,
    HubSource,
    LocalSource,
    Source,
    WebSource,
)


def is_same(source: Source, version: Version, manifest: Mapping[str, tuple[str, int]] | None, added_at: float) -> bool:
    """Whether `version`, added at `added_at` (seconds since the epoch), is what `source` names.

    `manifest` is that of a version that is a folder: name -> (sha256, bytes). A local file is taken for the same when
    it has the same size and was not written since; a hub's file when repository, file and, where it is a commit, the
    revision agree.
    """
    match source:
        case LocalSource():
            return version.origin == f"file:{source.path.absolute()}" and _is_untouched(
                source.path, version, manifest, added_at
            )
        case HubSource():
            return _is_hub_file(source, version)
        case WebSource():
            pinned = source.sha256 is None or version.digest == f"sha256:{source.sha256}"
            return pinned and version.origin == source.url.partition("?")[0]
        case BundledSource():
            return version.origin == f"bundled:{source.name}" and _is_bundled(source.name, version, manifest)
        case FakeSource():
            return version.digest == judge_fake(source).version.digest
        case EndpointSource():
            return version.origin == f"endpoint:{source.url}"


def _is_untouched(
    path: Path, version: Version, manifest: Mapping[str, tuple[str, int]] | None, added_at: float
) -> bool:
    root = path if path.is_dir() else path.parent
    sizes = {root / name: size for name, (_, size) in manifest.items()} if manifest else {path: version.bytes}
    try:
        statuses = [(file.stat(), size) for file, size in sizes.items()]
    except OSError:
        return False
    # Why the change time: it also tells of another file that was moved here and kept its own time of writing.
    return all(status.st_size == size and max(status.st_mtime, status.st_ctime) < added_at for status, size in statuses)


def _is_hub_file(source: HubSource, version: Version) -> bool:
    repository, _, rest = version.origin.removeprefix("hf:").partition("@")
    commit, _, file = rest.partition("/")
    if repository != f"{source.owner}/{source.repo}" or file != source.file:
        return False
    is_commit = source.revision is not None and len(source.revision) >= 40
    return not is_commit or source.revision == commit


def _is_bundled(name: str, version: Version, manifest: Mapping[str, tuple[str, int]] | None) -> bool:
    entry = next((entry for entry in load_bundled() if entry.get("name") == name), dict[str, Any]())
    if manifest is None:
        return version.digest == f"sha256:{entry.get('sha256')}"
    lines = "".join(f"{sha256}  {file}\n" for file, (sha256, _) in sorted(manifest.items()))
    return hashlib.sha256(lines.encode()).hexdigest() == entry.get("sha256")
