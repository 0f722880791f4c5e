"""Brings a database to the newest schema. Owns the order of revisions; the steps are in `migrations/`.

Alembic is imported only to upgrade an older database: a start on a new or current one must be quick.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from headgate.core.errors import StoreRefused
from headgate.store.database import Database
from headgate.store.schema import metadata

REVISIONS = ("0001", "0002")
"""Every schema this Headgate knows, oldest first. A test compares it with `migrations/versions`."""

HEAD = REVISIONS[-1]

_PATH = Path(__file__).parent / "migrations"
_STAMP = (
    "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
    "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
)


def load_revision(db: Database) -> str | None:
    """The schema revision of the database; None when it has no Headgate tables.

    Raises StoreUnavailable, StoreRefused.
    """
    with db.read() as connection:
        return _load_revision(connection)


def migrate(db: Database) -> bool:
    """Create or upgrade the tables; whether anything was done. Safe when several processes start at once.

    Raises StoreRefused when the database was written by a newer Headgate or holds another program's tables.
    """
    if db.path is None and load_revision(db) == HEAD:
        return False
    with _alone(db):
        # Why the first look within: SQLite does not wait for another process that makes the same new file a WAL one.
        revision = load_revision(db)
        if revision == HEAD:
            return False
        _check_known(db, revision)
        with db.write(durable=True) as connection:
            revision = _load_revision(connection)
            if revision is None:
                _create(db, connection)
            elif revision != HEAD:
                _upgrade(connection)
    return True


def check_schema(db: Database) -> None:
    """Make sure that the schema is current. Raises StoreRefused with the cure, StoreUnavailable."""
    revision = load_revision(db)
    _check_known(db, revision)
    if revision != HEAD:
        raise StoreRefused(f"the database {_shown(db)} has no current tables; `headgate up` makes them")


def _load_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _check_known(db: Database, revision: str | None) -> None:
    if revision is not None and revision not in REVISIONS:
        raise StoreRefused(
            f"the database {_shown(db)} has schema {revision}, made by a newer Headgate; "
            f"this one knows schemas up to {HEAD}. Install that version again, "
            "or give this one another 'state' folder",
            param="state",
        )


def _create(db: Database, connection: Connection) -> None:
    """Make all tables at once, without Alembic: the same as all migrations in order (a test compares)."""
    foreign = set(inspect(connection).get_table_names()) & set(metadata.tables)
    if foreign:
        raise StoreRefused(
            f"the database {_shown(db)} already has a table named {min(foreign)!r} of another program; "
            "give Headgate a database of its own",
            param="store.url",
        )
    metadata.create_all(connection, checkfirst=False)
    connection.execute(text(_STAMP))
    connection.execute(text("INSERT INTO alembic_version (version_num) VALUES (:head)"), {"head": HEAD})


def _upgrade(connection: Connection, to: str = "head") -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_PATH).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, to)


@contextmanager
def _alone(db: Database) -> Generator[None]:
    """Let one process migrate at a time: a file lock beside SQLite's file, an advisory lock in PostgreSQL."""
    if db.path is None:
        with db.write() as connection:
            db.lock(connection, "headgate migrate")
            yield
        return
    lock = db.path.with_name(db.path.name + ".migrate.lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        message = f"the lock file {lock} cannot be opened ({error.strerror}); check the rights on {lock.parent}"
        raise StoreRefused(message, param="state") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _shown(db: Database) -> str:
    return str(db.path) if db.path is not None else db.url.render_as_string(hide_password=True)
