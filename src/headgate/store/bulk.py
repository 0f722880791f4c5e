"""Many small rows in one durable transaction, straight through the driver, for a thread of its own.

Why not Core statements here: on two quiet cores, in groups of 10 requests, Core took 132 microseconds of CPU a request,
its exec_driver_sql 72, one statement with many VALUES 65 and the driver's executemany 52
(`benchmarks/ledger.py` measures again). Why SQLite gets a group as one JSON text: executemany lets go of the
interpreter's lock once a row and must win it back from the event loop (docs/why/006 has what was measured).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import orjson
from sqlalchemy import Table
from sqlalchemy.pool import PoolProxiedConnection

from headgate.core.errors import HeadgateError
from headgate.store.database import Database

Batch = tuple[str, Sequence[tuple[Any, ...]]]
"""A statement made by `insert_sql` or `settle_sql`, and its rows of values."""


class RowsRefused(HeadgateError):
    """A row of the group breaks a rule of its table; `write_each` writes the others."""

    code = "rows_refused"


def insert_sql(db: Database, table: Table, columns: Sequence[str]) -> str:
    """Insert rows of `columns`; a row whose primary key is there already is left as it is."""
    names = ", ".join(f'"{name}"' for name in columns)
    into = f"INSERT INTO {table.name} ({names})"
    if db.dialect == "sqlite":
        values = ", ".join(f"value ->> {place}" for place in range(len(columns)))
        return f"{into} SELECT {values} FROM json_each(?) WHERE true ON CONFLICT (id) DO NOTHING"  # noqa: S608
    values = ", ".join(["%s"] * len(columns))
    return f"{into} VALUES ({values}) ON CONFLICT (id) DO NOTHING"


def settle_sql(db: Database, table: Table, columns: Sequence[str]) -> str:
    """Set `columns` on the row with an id, the last value given, if that row is still open."""
    if db.dialect == "sqlite":
        changes = ", ".join(f'"{name}" = row.value ->> {place}' for place, name in enumerate(columns))
        which = f"{table.name}.id = row.value ->> {len(columns)} AND {table.name}.state = 'open'"
        return f"UPDATE {table.name} SET {changes} FROM json_each(?) AS row WHERE {which}"  # noqa: S608
    changes = ", ".join(f'"{name}" = %s' for name in columns)
    return f"UPDATE {table.name} SET {changes} WHERE id = %s AND state = 'open'"  # noqa: S608


class BulkWriter:
    """Writes groups over one connection that it opens when needed and drops after a fault. For one thread."""

    def __init__(self, db: Database, *, busy_timeout_s: float = 1.0) -> None:
        """`busy_timeout_s` is how long a group waits for another writer before it fails."""
        self._db = db
        self._busy_timeout_ms = int(busy_timeout_s * 1000)
        self._connection: PoolProxiedConnection | None = None

    def write(self, batches: Sequence[Batch]) -> None:
        """Write all rows in order, in one transaction, durably.

        After an error nothing was written, or, when the connection broke in the commit, perhaps everything:
        writing the same group again is safe. Raises RowsRefused, StoreUnavailable, StoreRefused.
        """
        driver = self._db.driver
        try:
            with self._db.faults():
                connection = self._begin()
                try:
                    cursor = connection.cursor()
                    for statement, rows in batches:
                        if self._db.dialect == "sqlite":
                            cursor.execute(statement, (orjson.dumps(rows).decode(),))
                        else:
                            cursor.executemany(statement, rows)
                    cursor.close()
                    connection.commit()
                except driver.ProgrammingError as error:
                    if getattr(error, "sqlstate", None):
                        raise  # the server refused the statement, not a row
                    raise _refuse(connection, error) from error
                except (driver.IntegrityError, driver.DataError, orjson.JSONEncodeError) as error:
                    raise _refuse(connection, error) from error
        except RowsRefused:
            raise
        except BaseException:
            self.close()
            raise

    def write_each(self, batches: Sequence[Batch]) -> int:
        """Write row by row, leaving out those that their table refuses; how many were left out.

        Raises StoreUnavailable, StoreRefused.
        """
        refused = 0
        for statement, rows in batches:
            for row in rows:
                try:
                    self.write([(statement, [row])])
                except RowsRefused:
                    refused += 1
        return refused

    def close(self) -> None:
        """Close the connection, rolling back what was not committed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(self._db.driver.Error):
                connection.close()

    def _begin(self) -> PoolProxiedConnection:
        if self._connection is None:
            self._connection = self._db.driver_connection()
            if self._db.dialect == "sqlite":
                cursor = self._connection.cursor()
                cursor.execute(f"PRAGMA busy_timeout={self._busy_timeout_ms}")
                cursor.close()
        if self._db.dialect == "sqlite":
            cursor = self._connection.cursor()
            cursor.execute("BEGIN IMMEDIATE")
            cursor.close()
        return self._connection


def _refuse(connection: PoolProxiedConnection, error: Exception) -> RowsRefused:
    connection.rollback()
    return RowsRefused(f"a row was refused: {type(error).__name__}")
