"""What the node writes down: rows of replicas and of decisions. In the database, or in memory for tests.

Rows are written by one thread in the order they were given, so the loop never waits for a disk. A database that
does not answer loses no row: they wait, the newest word on each replica wins.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from sqlalchemy import delete, func, select, update

from headgate.allocation.plan import Move, Start, Wake
from headgate.allocation.state import Change
from headgate.core.clock import Clock
from headgate.core.errors import HeadgateError
from headgate.store.database import Database
from headgate.store.schema import decisions as decisions_table
from headgate.store.schema import replicas as replicas_table

log = logging.getLogger(__name__)

Row = Mapping[str, Any]

_RETRY_S = 1.0
_WAITING_LIMIT = 10_000
_LIVE = ("starting", "ready", "draining", "warm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One decision that changed something. `state` replays to it; `moves` are what was done at once or planned."""

    id: str
    at: float
    number: int
    trigger: str
    state: Mapping[str, Any] = field(repr=False)
    moves: tuple[Mapping[str, Any], ...]
    reason: str
    changes: tuple[Change, ...] = ()
    gap_to_bound: float | None = None

    def row(self, seal: str) -> Row:
        """As it is written down, with the seal of its whole answer."""
        return {
            "id": self.id,
            "at": self.at,
            "number": self.number,
            "trigger": self.trigger,
            "state": self.state,
            "moves": list(self.moves),
            "reason": self.reason,
            "seal": seal,
        }


class Journal(Protocol):
    """Where rows go. `record_` returns at once."""

    def record_replica(self, row: Row) -> None:
        """Insert or change the row of a replica: `id` and the columns that changed."""
        ...

    def record_decision(self, row: Row) -> None:
        """Add a decision."""
        ...

    def load_live(self) -> dict[str, dict[str, Any]]:
        """Rows of replicas that have not ended as far as the journal knows, by id."""
        ...

    def last_number(self) -> int:
        """The number of the newest decision; 0 when there is none."""
        ...


class MemoryJournal:
    """Rows in memory. For tests and dry runs."""

    def __init__(self) -> None:
        self.replicas: dict[str, dict[str, Any]] = {}
        self.decisions: list[Row] = []

    def record_replica(self, row: Row) -> None:
        """See Journal."""
        self.replicas.setdefault(row["id"], {}).update(row)

    def record_decision(self, row: Row) -> None:
        """See Journal."""
        self.decisions.append(row)

    def load_live(self) -> dict[str, dict[str, Any]]:
        """See Journal."""
        return {name: row for name, row in self.replicas.items() if row["state"] in _LIVE}

    def last_number(self) -> int:
        """See Journal."""
        return max((row["number"] for row in self.decisions), default=0)


class StoreJournal:
    """Rows in the database. `run` writes them until it is cancelled; `flush` writes what is left."""

    def __init__(self, db: Database, clock: Clock, *, decisions_kept: int) -> None:
        self._db = db
        self._clock = clock
        self._kept = decisions_kept
        self._rows: deque[tuple[str, dict[str, Any]]] = deque()
        self._written = 0
        self._more = asyncio.Event()
        self.fault: str | None = None

    @property
    def waiting(self) -> int:
        """Rows that are not written yet."""
        return len(self._rows)

    def record_replica(self, row: Row) -> None:
        """See Journal."""
        self._add("replica", row)

    def record_decision(self, row: Row) -> None:
        """See Journal."""
        self._add("decision", row)

    def load_live(self) -> dict[str, dict[str, Any]]:
        """See Journal. Raises StoreUnavailable, StoreRefused."""
        with self._db.read() as connection:
            found = connection.execute(select(replicas_table).where(replicas_table.c.state.in_(_LIVE)))
            return {row["id"]: dict(row) for row in found.mappings()}

    def last_number(self) -> int:
        """See Journal. Raises StoreUnavailable, StoreRefused."""
        with self._db.read() as connection:
            return connection.execute(select(func.max(decisions_table.c.number))).scalar() or 0

    async def run(self) -> None:
        """Write rows as they come, until cancelled."""
        while True:
            await self._more.wait()
            self._more.clear()
            while self._rows:
                batch = list(self._rows)
                try:
                    await asyncio.to_thread(self._write, batch)
                except HeadgateError as error:
                    if self.fault is None:
                        log.warning("decisions and replicas cannot be recorded now: %s", error.message)
                    self.fault = error.message
                    await self._clock.sleep(_RETRY_S)
                    continue
                except Exception:
                    # Why dropped: a row that its table refuses would keep all that follow from being written.
                    log.exception("%d rows of decisions and replicas could not be recorded", len(batch))
                self.fault = None
                for _ in batch:
                    self._rows.popleft()

    def flush(self) -> None:
        """Write what is left, blocking. A database that does not answer is left alone."""
        batch = list(self._rows)
        try:
            self._write(batch)
        except HeadgateError as error:
            log.warning("%d rows could not be recorded: %s", len(batch), error.message)
            return
        self._rows.clear()

    def _add(self, kind: str, row: Row) -> None:
        if len(self._rows) >= _WAITING_LIMIT and kind == "decision":
            return  # the database is away for hours: what replicas are doing matters more
        self._rows.append((kind, dict(row)))
        self._more.set()

    def _write(self, batch: list[tuple[str, dict[str, Any]]]) -> None:
        if not batch:
            return
        with self._db.write() as connection:
            for kind, row in batch:
                if kind == "decision":
                    self._db.upsert(connection, decisions_table, row, update=())
                    self._written += 1
                elif "pipeline" in row:
                    self._db.upsert(connection, replicas_table, row)
                else:
                    changed = {name: value for name, value in row.items() if name != "id"}
                    connection.execute(update(replicas_table).where(replicas_table.c.id == row["id"]).values(**changed))
            if self._written >= self._kept // 10:
                self._written = 0
                oldest = select(func.max(decisions_table.c.number) - self._kept).scalar_subquery()
                connection.execute(delete(decisions_table).where(decisions_table.c.number <= oldest))


def plain_move(move: Move) -> dict[str, Any]:
    """A move as it is recorded."""
    if isinstance(move, Start | Wake):
        seat = move.seat
        return {
            "kind": move.kind,
            "pipeline": seat.pipeline,
            **({"replica": seat.replica} if seat.replica else {}),
            "pool": seat.pool,
            "devices": list(seat.devices),
            "share": seat.share,
            "after": list(move.after),
        }
    return {"kind": move.kind, "pipeline": move.pipeline, "replica": move.replica}
