"""The one door to the database: SQLite in WAL mode by default, PostgreSQL by URL, one code for both.

Owns connections, transactions and the translation of database faults into clear errors. Knows no table.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, Table, create_engine, event, exc, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import PoolProxiedConnection

from headgate.core.errors import ConfigError, StoreRefused, StoreUnavailable

_MODE = "headgate_begin"
_DURABLE = "headgate_durable"
_WAL_LIMIT_BYTES = 64 * 2**20


def sqlite_url(path: Path) -> str:
    """The URL of the SQLite database in the file `path`."""
    return URL.create("sqlite", database=str(path.absolute())).render_as_string(hide_password=False)


class Database:
    """Connections to one database. Make one per process; its threads may share it.

    On SQLite `write()` is exclusive from its first statement. On PostgreSQL it is an ordinary READ COMMITTED
    transaction: where two writers must not meet, call `lock(connection, name)` first (a no-op on SQLite).
    """

    def __init__(self, url: str, *, busy_timeout_s: float = 5.0) -> None:
        """Prepare the engine; an SQLite file is made with mode 0600, other databases are not touched yet.

        `busy_timeout_s` is how long a writer waits for another before it gives up with StoreUnavailable.
        Raises ConfigError (bad URL, driver missing) or StoreRefused (the file cannot be opened).
        """
        self.url = _parse_url(url)
        self.dialect = "sqlite" if self.url.get_backend_name() == "sqlite" else "postgresql"
        self.path = Path(self.url.database or "") if self.dialect == "sqlite" else None
        self._busy_timeout_s = busy_timeout_s
        self._pid = os.getpid()
        if self.path is not None:
            _make_private(self.path)
        self._engine = self._make_engine()
        if self.dialect == "sqlite":
            self._reader = self._engine.execution_options(**{_MODE: "BEGIN"})
            self._writer = self._engine.execution_options(**{_MODE: "BEGIN IMMEDIATE"})
            self._durable = self._engine.execution_options(**{_MODE: "BEGIN IMMEDIATE", _DURABLE: True})
        else:
            self._reader = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            self._writer = self._durable = self._engine

    @contextmanager
    def read(self) -> Generator[Connection]:
        """A connection that sees one unchanging state of the rows. Raises StoreUnavailable, StoreRefused."""
        with self._connection(self._reader) as connection:
            yield connection

    @contextmanager
    def write(self, *, durable: bool = False) -> Generator[Connection]:
        """A transaction: committed at the end, rolled back when the body raises.

        With `durable`, a commit that returned survives the loss of power; else only the death of the process.
        Raises StoreUnavailable (locked for longer than the timeout, disk full) or StoreRefused.
        """
        with self._connection(self._durable if durable else self._writer) as connection:
            yield connection

    def driver_connection(self) -> PoolProxiedConnection:
        """A durable connection of the driver itself, taken out of the pool; the caller closes it. For `bulk`.

        Raises StoreUnavailable, StoreRefused.
        """
        with self.faults():
            connection = self._checked(self._engine).raw_connection()
            connection.detach()
            if self.dialect == "sqlite":
                cursor = connection.cursor()
                cursor.execute("PRAGMA synchronous=FULL")
                # Why: a checkpoint costs two syncs; every 16 MiB instead of 4 keeps them rare under load.
                cursor.execute("PRAGMA wal_autocheckpoint=4000")
                cursor.close()
            return connection

    @property
    def driver(self) -> Any:
        """The driver's DBAPI module, for its exception classes."""
        return self._engine.dialect.loaded_dbapi

    def upsert(
        self,
        connection: Connection,
        table: Table,
        values: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        update: Sequence[str] | None = None,
    ) -> None:
        """Insert `values` (one row, or several with the same columns); update rows that are there already.

        `update` names the columns to change on a row that exists: all given ones by default, none when empty.
        """
        rows = [values] if isinstance(values, Mapping) else list(values)
        if not rows:
            return
        key = [column.name for column in table.primary_key]
        changed = [name for name in rows[0] if name not in key] if update is None else list(update)
        insert = sqlite.insert(table) if self.dialect == "sqlite" else postgresql.insert(table)
        if changed:
            new = {name: insert.excluded[name] for name in changed}
            statement = insert.on_conflict_do_update(index_elements=key, set_=new)
        else:
            statement = insert.on_conflict_do_nothing(index_elements=key)
        connection.execute(statement, [dict(row) for row in rows])

    def lock(self, connection: Connection, name: str) -> None:
        """Hold `name` alone until the transaction ends. On SQLite a writer is alone already."""
        if self.dialect == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": name})

    def check(self) -> None:
        """Try to read. Raises StoreUnavailable or StoreRefused with the cure."""
        with self.read() as connection:
            if self.dialect == "sqlite":
                connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")
            else:
                connection.exec_driver_sql("SELECT 1")

    def close(self) -> None:
        """Close every idle connection."""
        self._engine.dispose()

    @contextmanager
    def faults(self) -> Generator[None]:
        """Turn the driver's faults into StoreUnavailable or StoreRefused; broken constraints pass."""
        try:
            yield
        except (exc.IntegrityError, self.driver.IntegrityError):
            raise
        except (exc.DatabaseError, exc.TimeoutError, self.driver.Error) as error:
            raise _explain(error, self.url, self.dialect) from error

    @contextmanager
    def _connection(self, engine: Engine) -> Generator[Connection]:
        with self.faults(), self._checked(engine).begin() as connection:
            yield connection

    def _checked(self, engine: Engine) -> Engine:
        if self._pid != os.getpid():
            # Why: SQLite's locks and PostgreSQL's sockets must not be shared with the parent of a fork.
            self._engine.dispose(close=False)
            self._pid = os.getpid()
        return engine

    def _make_engine(self) -> Engine:
        # Why hide_parameters: an error text must never show a hash or a replica's secret.
        options: dict[str, Any] = {
            "hide_parameters": True,
            "json_serializer": _dump_json,
            "json_deserializer": _load_json,
            "pool_size": 2,
            "max_overflow": 14,
        }
        if self.dialect == "sqlite":
            options["connect_args"] = {"timeout": self._busy_timeout_s, "isolation_level": None}
        else:
            options["pool_pre_ping"] = True
            timeout_ms = int(self._busy_timeout_s * 1000)
            options["connect_args"] = {
                "connect_timeout": 10,
                "options": f"-c lock_timeout={timeout_ms} -c timezone=UTC",
            }
        try:
            engine = create_engine(self.url, **options)
        except ModuleNotFoundError as error:
            raise ConfigError(
                "store.url names a PostgreSQL database, but its driver is not installed; "
                "run: pip install 'headgate[postgres]'",
                param="store.url",
            ) from error
        if self.dialect == "sqlite":
            event.listen(engine, "connect", _set_pragmas)
            event.listen(engine, "begin", _begin)
        return engine


def _parse_url(given: str) -> URL:
    try:
        url = make_url(given)
    except exc.ArgumentError:
        raise ConfigError(
            "store.url is not a database URL; write sqlite:////absolute/path.db or "
            "postgresql://user:password@host/database",
            param="store.url",
        ) from None
    backend = url.get_backend_name()
    if backend == "sqlite":
        if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
            raise ConfigError(
                "store.url must name a file, because several processes share the database; "
                "write sqlite:////absolute/path.db",
                param="store.url",
            )
        return url.set(drivername="sqlite")
    if backend in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    raise ConfigError(
        f"store.url names a database of kind {backend!r}; Headgate works with sqlite and postgresql",
        param="store.url",
    )


def _make_private(path: Path) -> None:
    """Make the file when it is missing, and close it to other users. The -wal file gets the same mode."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        raise StoreRefused(
            f"the folder {path.parent} does not exist; make it, or change 'state'", param="state"
        ) from None
    except OSError as error:
        raise StoreRefused(
            f"the database {path} cannot be opened ({error.strerror}); "
            "give this user the right to read and write it, or change 'state'",
            param="state",
        ) from None
    try:
        facts = os.fstat(descriptor)
        if stat.S_IMODE(facts.st_mode) & 0o077 and facts.st_uid == os.geteuid():
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def _dump_json(value: object) -> str:
    return orjson.dumps(value).decode()


def _load_json(value: Any) -> Any:
    # Why: SQLite stores the text of a bare JSON number as a number, and gives that back.
    return value if isinstance(value, int | float) else orjson.loads(value)


def _set_pragmas(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA journal_size_limit={_WAL_LIMIT_BYTES}")
    cursor.close()


def _begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    # Why each time: connections go back to the pool, and the setting cannot change inside a transaction.
    level = "FULL" if options.get(_DURABLE) else "NORMAL"
    connection.exec_driver_sql(f"PRAGMA synchronous={level}")
    connection.exec_driver_sql(options.get(_MODE, "BEGIN IMMEDIATE"))


_FAULTS: tuple[tuple[str, type[StoreUnavailable] | type[StoreRefused], str], ...] = (
    ("database or disk is full", StoreUnavailable, "the disk is full; free space in {folder}"),
    ("no space left", StoreUnavailable, "the database server's disk is full; free space there"),
    ("database is locked", StoreUnavailable, "another process has held its lock for too long; try again"),
    ("lock timeout", StoreUnavailable, "another process has held its lock for too long; try again"),
    ("deadlock", StoreUnavailable, "two writers waited for each other; try again"),
    ("disk i/o error", StoreUnavailable, "the disk reports an error; check the disk that holds {folder}"),
    ("unable to open", StoreRefused, "it cannot be opened; check the rights on {folder}"),
    ("readonly database", StoreRefused, "it is read-only for this user; check the rights on {folder}"),
    ("not a database", StoreRefused, "it is not an SQLite database; move the file away or restore a copy"),
    ("malformed", StoreRefused, "it is damaged; restore a copy, or try sqlite3's command .recover"),
    ("no such table", StoreRefused, "it has no Headgate tables; `headgate up` makes them"),
    ("no such column", StoreRefused, "its tables are not those of this Headgate; restore a copy"),
    ("syntax error", StoreRefused, "it does not understand a statement; please report this"),
    ("incomplete input", StoreRefused, "it does not understand a statement; please report this"),
    ("does not exist", StoreRefused, "a database, role or table is missing; make it, then `headgate up`"),
    ("authentication failed", StoreRefused, "the server refused the user or password; correct store.url"),
    ("no password supplied", StoreRefused, "the server asks for a password; put it into store.url"),
)  # fmt: skip


def _explain(error: Exception, url: URL, dialect: str) -> StoreUnavailable | StoreRefused:
    """The error a person can act on; an unknown fault of the driver is named by its first line."""
    cause = getattr(error, "orig", None) or error
    first_line = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
    shown = url.database if dialect == "sqlite" else url.render_as_string(hide_password=True)
    folder = str(Path(url.database or ".").parent)
    for needle, kind, cure in _FAULTS:
        if needle in str(cause).lower():
            return kind(f"the database {shown}: {cure.format(folder=folder)}", param="store")
    if isinstance(error, exc.ProgrammingError):
        return StoreRefused(f"the database {shown} refused a statement: {first_line}", param="store")
    message = f"the database {shown} does not answer: {first_line}"
    return StoreUnavailable(message, param="store", retry_after_s=1.0)
