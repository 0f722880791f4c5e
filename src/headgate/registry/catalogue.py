"""Which models and versions exist. The one class that other rooms use of the registry.

A name points to one version and remembers its earlier ones. Adding is all or nothing; bytes are shared between
names and versions. All calls block on disk, network and child processes: not for an event loop's thread.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, delete, func, insert, select, update

from headgate.core.clock import Clock, SystemClock
from headgate.core.errors import HeadgateError, ModelNotFound, ModelRefused
from headgate.core.ids import Ids
from headgate.core.model import Version
from headgate.registry.blobs import BlobStore, Damage
from headgate.registry.download import Downloader
from headgate.registry.fetch import Fetched, Fetcher
from headgate.registry.intake import (
    Candidate,
    Smoke,
    check_chat_template,
    check_licence,
    header_from_row,
    judge,
    judge_endpoint,
    judge_fake,
    moved,
)
from headgate.registry.known import is_same
from headgate.registry.settings import RegistrySettings
from headgate.registry.sources import EndpointSource, FakeSource, HubSource, Source, WebSource, check_url, parse_source
from headgate.registry.staging import Progress, Staging, no_progress
from headgate.store.database import Database
from headgate.store.schema import model_versions, models, versions

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

InUse = Callable[[str], Sequence[str]]
"""Names of the pipelines that use the model of this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What adding did: 'added' a new name, 'moved' the name to another version, or 'unchanged'.

    `left_out` are files of the folder that do not belong to the model and were not taken.
    """

    name: str
    version: Version
    outcome: Literal["added", "moved", "unchanged"]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One named model. Times in seconds since the epoch; `history` has (digest, added at), newest first."""

    name: str
    version: Version
    created_at: float
    verified_at: float | None
    history: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What verifying found: every damaged file of the version, none when all is well."""

    digest: str
    damages: tuple[Damage, ...]


class Registry:
    """Models of one machine: rows in the database, bytes under `folder`."""

    def __init__(
        self,
        *,
        folder: Path,
        database: Database,
        clock: Clock,
        ids: Ids,
        smoke: Smoke,
        in_use: InUse = lambda _name: (),
        settings: RegistrySettings | None = None,
        wait: Callable[[float], None] | None = None,
    ) -> None:
        """`wait` blocks for seconds between attempts of a download; the system's own by default."""
        self._database, self._clock, self._smoke, self._in_use = database, clock, smoke, in_use
        self._settings = settings or RegistrySettings()
        self._blobs = BlobStore(folder.absolute(), ids)
        downloader = Downloader(
            clock=clock,
            wait=wait or SystemClock().block,
            max_bytes=self._settings.max_model_bytes,
            silence_s=self._settings.connect_timeout_s,
            timeout_s=self._settings.download_timeout_s,
        )
        self._fetcher = Fetcher(self._blobs, downloader, self._settings)

    def add(
        self,
        name: str,
        source: str,
        *,
        licence: str | None = None,
        from_configuration: bool = False,
        progress: Progress = no_progress,
    ) -> Added:
        """Fetch, judge and try a model, then give it the name. The same bytes under the same name change nothing.

        `licence` overrides what the model says of itself. `from_configuration` says that the source stands in
        headgate.yaml, which names its host.

        Raises:
            ModelRefused: with the reason and the cure; then no row and no byte is left behind, but a broken download
                stays to be continued (code 'source_unavailable').
        """
        if not _NAME.fullmatch(name):
            raise ModelRefused(
                f"{name[:60]!r} is no name for a model. Use letters, digits, '.', '_' and '-', at most 100.",
                param="name",
            )
        parsed = parse_source(source)
        if parsed.kind not in self._settings.sources:
            raise ModelRefused(
                f"Sources of the kind {parsed.kind} are switched off by registry.sources.", param="source"
            )
        started = self._clock.now()  # what is written to the source from now on may not be in the version
        with self._blobs.locked():
            self._blobs.sweep(now=started)
        with self._blobs.stage() as staging:
            candidate = self._judge(parsed, staging, licence, from_configuration, progress)
            version = candidate.version
            check_licence(version.licence, self._settings)
            if self._row(version.digest) is None:
                self._try(version, progress)
            return self._keep(name, candidate, started)

    def ensure(self, name: str, source: str, *, progress: Progress = no_progress) -> Added:
        """As `add` for a source in headgate.yaml, but nothing is fetched when the name already has what it names.

        A hub's branch or a URL is not asked whether it has changed: `headgate model add` does that.
        """
        try:
            entry = self.show(name)
        except ModelNotFound:
            return self.add(name, source, from_configuration=True, progress=progress)
        parsed = parse_source(source)
        manifest = self._manifest(entry.version)
        if is_same(parsed, entry.version, manifest, entry.history[0][1]) and self._is_there(entry.version):
            return Added(name=name, version=entry.version, outcome="unchanged")
        return self.add(name, source, from_configuration=True, progress=progress)

    def get(self, name: str) -> Version:
        """The version that `name` points to.

        Raises ModelNotFound, or ModelRefused when its bytes are not there or not as many as they were.
        """
        version = self.show(name).version
        if not self._is_there(version):
            raise ModelRefused(
                f"The bytes of {name} are missing or cut off at {version.path}. Add the model again from its source."
            )
        return version

    def get_version(self, digest: str) -> Version:
        """The version of that digest, also an earlier one. Raises ModelNotFound."""
        row = self._row(digest)
        if row is None:
            raise ModelNotFound(f"No version {digest[:80]} is registered. `headgate model list` shows what is.")
        return self._version(row)

    def list(self) -> tuple[Entry, ...]:
        """All named models, by name."""
        with self._database.read() as connection:
            rows = connection.execute(select(models.c.name).order_by(models.c.name)).scalars().all()
            return tuple(entry for name in rows if (entry := self._entry(connection, name)) is not None)

    def show(self, name: str) -> Entry:
        """One named model with its history. Raises ModelNotFound."""
        with self._database.read() as connection:
            entry = self._entry(connection, name)
        if entry is None:
            raise ModelNotFound(
                f"No model {name[:100]!r} is registered. `headgate model list` shows those that are.", param="name"
            )
        return entry

    def verify(self, name: str, *, progress: Progress = no_progress) -> Verified:
        """Hash all bytes of the model's current version again. Raises ModelNotFound."""
        version = self.show(name).version
        if not version.path:
            return Verified(digest=version.digest, damages=())
        folder = self._is_folder(version)
        damages = tuple(self._blobs.verify(version.digest, folder=folder, progress=progress))
        with self._database.write() as connection:
            at = None if damages else self._clock.now()
            connection.execute(update(versions).where(versions.c.digest == version.digest).values(verified_at=at))
        return Verified(digest=version.digest, damages=damages)

    def remove(self, name: str, *, digest: str | None = None) -> int:
        """Forget the model, or one earlier version of it; bytes freed, those that no other version shares.

        Raises ModelNotFound, or ModelRefused (code 'model_in_use') naming the pipelines that use it.
        """
        entry = self.show(name)
        if digest is not None and digest not in {known for known, _ in entry.history}:
            raise ModelNotFound(f"The model {name} has no version {digest[:80]}.", param="digest")
        users = tuple(self._in_use(name))
        if users and digest in (None, entry.version.digest):
            raise ModelRefused(
                f"The model {name} is used by {', '.join(users[:5])}. Take it out of headgate.yaml, `headgate reload`, "
                "and remove it then.",
                code="model_in_use",
                param="name",
            )
        if digest == entry.version.digest and len({known for known, _ in entry.history}) > 1:
            raise ModelRefused(
                f"{digest} is the current version of {name}. Add the version it should have instead first."
            )
        with self._blobs.locked():
            with self._database.write(durable=True) as connection:
                self._forget(connection, name, None if digest == entry.version.digest else digest)
            return self._drop_orphans()

    def sweep(self) -> int:
        """Delete what crashes left behind; bytes freed. For the start of the node."""
        with self._blobs.locked():
            self._blobs.sweep(now=self._clock.now())
            return self._drop_orphans()

    def _judge(
        self, source: Source, staging: Staging, licence: str | None, configured: bool, progress: Progress
    ) -> Candidate:
        extra = (check_url(source.url),) if configured and isinstance(source, WebSource | EndpointSource) else ()
        if configured and isinstance(source, HubSource):
            extra = ("huggingface.co", "*.huggingface.co", "*.hf.co")
        match source:
            case FakeSource():
                return judge_fake(source)
            case EndpointSource():
                return judge_endpoint(source, self._settings, extra)
            case _:
                fetched = self._fetcher.fetch(source, staging, extra_hosts=extra, progress=progress)
                return judge(fetched, staging, licence=licence)

    def _try(self, version: Version, progress: Progress) -> None:
        timeout_s = self._settings.template_timeout_s
        check_chat_template(version, now=self._clock.now(), timeout_s=timeout_s)
        if version.format == "safetensors":
            return  # registered and verified; no engine runs it yet
        progress("trying", 0, None)
        try:
            self._smoke(version)
        except HeadgateError:
            raise
        except Exception as error:
            raise ModelRefused(
                f"The model could not be tried: {type(error).__name__}. `headgate doctor` may say why."
            ) from error

    def _keep(self, name: str, candidate: Candidate, started: float) -> Added:
        version, fetched = candidate.version, candidate.fetched
        with self._blobs.locked():
            try:
                if fetched is not None:
                    version = moved(version, str(self._place(fetched) / candidate.main))
                with self._database.write(durable=True) as connection:
                    outcome = self._record(connection, name, version, started)
            except BaseException:
                self._drop_orphans()
                raise
        kept = self.get_version(version.digest)
        return Added(name=name, version=kept, outcome=outcome, left_out=fetched.left_out if fetched else ())

    def _place(self, fetched: Fetched) -> Path:
        if fetched.is_folder:
            return self._blobs.keep_folder(fetched.files)[1]
        return self._blobs.keep_file(fetched.files[0])

    def _record(
        self, connection: Connection, name: str, version: Version, started: float
    ) -> Literal["added", "moved", "unchanged"]:
        now = self._clock.now()
        if connection.execute(select(versions.c.digest).where(versions.c.digest == version.digest)).first() is None:
            row = asdict(version) | {"path": self._relative(version.path), "created_at": now, "verified_at": now}
            connection.execute(insert(versions).values(row))
        current = connection.execute(select(models.c.current_digest).where(models.c.name == name)).first()
        link = {"name": name, "digest": version.digest, "added_at": started}
        if current is not None and current[0] == version.digest:
            known = (model_versions.c.name == name) & (model_versions.c.digest == version.digest)
            newest = select(func.max(model_versions.c.added_at)).where(known).scalar_subquery()
            latest = known & (model_versions.c.added_at == newest)
            connection.execute(update(model_versions).where(latest).values(added_at=started))
            return "unchanged"
        if current is None:
            connection.execute(insert(models).values(name=name, current_digest=version.digest, created_at=now))
        else:
            statement = update(models).where(models.c.name == name)
            connection.execute(statement.values(current_digest=version.digest))
        self._database.upsert(connection, model_versions, link, update=())
        return "added" if current is None else "moved"

    def _forget(self, connection: Connection, name: str, digest: str | None) -> None:
        links = delete(model_versions).where(model_versions.c.name == name)
        connection.execute(links if digest is None else links.where(model_versions.c.digest == digest))
        if digest is None:
            connection.execute(delete(models).where(models.c.name == name))
        connection.execute(delete(versions).where(versions.c.digest.not_in(select(model_versions.c.digest).distinct())))

    def _drop_orphans(self) -> int:
        with self._database.read() as connection:
            rows = connection.execute(select(versions.c.digest, versions.c.path)).all()
        files = [row.digest for row in rows if row.path.startswith("blobs/")]
        folders = [row.digest for row in rows if row.path.startswith("folders/")]
        return self._blobs.drop_unreferenced(files, folders)

    def _entry(self, connection: Connection, name: str) -> Entry | None:
        joined = select(models.c.created_at.label("named_at"), versions).join(
            versions, versions.c.digest == models.c.current_digest
        )
        row = connection.execute(joined.where(models.c.name == name)).mappings().first()
        if row is None:
            return None
        statement = select(model_versions.c.digest, model_versions.c.added_at).where(model_versions.c.name == name)
        history = connection.execute(statement.order_by(model_versions.c.added_at.desc())).all()
        return Entry(
            name=name,
            version=self._version(dict(row)),
            created_at=row["named_at"],
            verified_at=row["verified_at"],
            history=tuple((digest, added_at) for digest, added_at in history),
        )

    def _row(self, digest: str) -> dict[str, Any] | None:
        with self._database.read() as connection:
            row = connection.execute(select(versions).where(versions.c.digest == digest)).mappings().first()
        return dict(row) if row is not None else None

    def _version(self, row: dict[str, Any]) -> Version:
        names = tuple(Version.__dataclass_fields__)
        values = {key: value for key, value in row.items() if key in names}
        values["path"] = str(self._blobs.root / row["path"]) if row["path"] else ""
        values["header"] = header_from_row(row["header"])
        return Version(**values)

    def _relative(self, path: str) -> str:
        """As a row keeps it, so that the state folder may be moved."""
        return str(Path(path).relative_to(self._blobs.root)) if path else ""

    def _is_folder(self, version: Version) -> bool:
        return self._relative(version.path).startswith("folders/")

    def _is_there(self, version: Version) -> bool:
        if not version.path:
            return True
        path = Path(version.path)
        if self._is_folder(version):
            return path.exists()
        return path.is_file() and path.stat().st_size == version.bytes

    def _manifest(self, version: Version) -> dict[str, tuple[str, int]] | None:
        if not version.path or not self._is_folder(version):
            return None
        try:
            return self._blobs.load_manifest(version.digest)
        except ModelRefused:
            return None
