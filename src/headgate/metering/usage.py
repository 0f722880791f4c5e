"""Sums over the ledger: what was asked and what it took, by pipeline, team, user, key, version, replica or pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import ColumnElement, Table, case, func, select

from headgate.store.database import Database
from headgate.store.schema import calls, requests

RequestsBy = Literal["pipeline", "user", "team", "key_id", "kind", "gateway", "state"]
CallsBy = Literal["version", "engine", "replica", "pool", "device", "user", "team", "key_id", "kind", "state"]

_SLACK_S = 60.0  # an id may have been made a little before its row was opened


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSum:
    """Requests with one value of the column summed by, of the time asked for.

    `failed` counts error and lost. Milliseconds are sums: divide by `settled` for means.
    """

    by: str
    requests: int
    open: int
    ok: int
    failed: int
    cancelled: int
    refused: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    queue_ms: float
    total_ms: float

    @property
    def settled(self) -> int:
        """Requests in a terminal state."""
        return self.requests - self.open


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSum:
    """Engine calls with one value of the column summed by, of the time asked for."""

    by: str
    calls: int
    open: int
    ok: int
    failed: int
    cancelled: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    queue_ms: float
    compute_ms: float


def first_id(at: float) -> str:
    """The smallest id that can be made at `at` (seconds since the epoch): ids sort by time. Source: RFC 9562."""
    return f"{max(0, int(at * 1000)):012x}" + "0" * 20


def sum_requests(
    db: Database, *, since: float, until: float | None = None, by: RequestsBy = "pipeline"
) -> list[RequestSum]:
    """Requests opened in [since, until), most first. Times in seconds since the epoch. Raises StoreUnavailable."""
    column = requests.c[by]
    columns = [
        column,
        func.count(),
        *(
            _count(requests, *states)
            for states in (("open",), ("ok",), ("error", "lost"), ("cancelled",), ("refused",))
        ),
        *(
            _total(requests, name)
            for name in ("prompt_tokens", "cached_tokens", "output_tokens", "queue_ms", "total_ms")
        ),
    ]
    statement = select(*columns).where(*_window(requests, since, until)).group_by(column)
    with db.read() as connection:
        rows = connection.execute(statement.order_by(func.count().desc(), column)).all()
    return [RequestSum(**dict(zip(RequestSum.__dataclass_fields__, row, strict=True))) for row in rows]


def sum_calls(db: Database, *, since: float, until: float | None = None, by: CallsBy = "version") -> list[CallSum]:
    """Calls opened in [since, until), most first. Times in seconds since the epoch. Raises StoreUnavailable."""
    column = calls.c[by]
    columns = [
        column,
        func.count(),
        *(_count(calls, *states) for states in (("open",), ("ok",), ("error", "lost"), ("cancelled",))),
        *(
            _total(calls, name)
            for name in ("prompt_tokens", "cached_tokens", "output_tokens", "queue_ms", "compute_ms")
        ),
    ]
    statement = select(*columns).where(*_window(calls, since, until)).group_by(column)
    with db.read() as connection:
        rows = connection.execute(statement.order_by(func.count().desc(), column)).all()
    return [CallSum(**dict(zip(CallSum.__dataclass_fields__, row, strict=True))) for row in rows]


def _count(table: Table, *states: str) -> ColumnElement[int]:
    return func.coalesce(func.sum(case((table.c.state.in_(states), 1), else_=0)), 0)


def _total(table: Table, name: str) -> ColumnElement[float]:
    # Why the cast: PostgreSQL sums 64-bit integers into a decimal, SQLite into an integer.
    return func.coalesce(func.sum(table.c[name]), 0).cast(table.c[name].type)


def _window(table: Table, since: float, until: float | None) -> list[ColumnElement[bool]]:
    """Rows of the time asked for; the ids narrow it to a range of the primary key."""
    window: list[ColumnElement[bool]] = [table.c.id >= first_id(since - _SLACK_S), table.c.opened_at >= since]
    if until is not None:
        window += [table.c.id < first_id(until + _SLACK_S), table.c.opened_at < until]
    return window
