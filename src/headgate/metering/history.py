"""What was asked, request by request: the ledger read back without prompts, keys or users."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, select

from headgate.metering.usage import first_id
from headgate.store.database import Database
from headgate.store.schema import calls, requests

_PAGE = 1000  # rows read at once
_SLACK_S = 60.0  # an id may have been made a little before its row was opened
_COLUMNS = (
    requests.c.id, requests.c.opened_at, requests.c.pipeline, requests.c.prompt_tokens, requests.c.output_tokens,
    requests.c.queue_ms, requests.c.state,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRequest:
    """One request of the ledger. `at` in seconds since the epoch; None: not known, as of one that was refused.

    `compute_s` is what replicas spent on it, in all attempts together; `outcome` its state in the ledger.
    """

    at: float
    pipeline: str
    prompt_tokens: int | None
    output_tokens: int | None
    queue_s: float | None
    compute_s: float | None
    outcome: str


def load_history(
    db: Database, *, since: float, until: float | None = None, pipeline: str | None = None
) -> Generator[PastRequest]:
    """Requests opened in [since, until) (seconds since the epoch), in about the order they came.

    A thousand are held at a time, whatever the ledger's size. Raises StoreUnavailable, StoreRefused.
    """
    last = first_id(since - _SLACK_S)
    wanted: list[ColumnElement[bool]] = [requests.c.opened_at >= since]
    if until is not None:
        wanted += [requests.c.id < first_id(until + _SLACK_S), requests.c.opened_at < until]
    if pipeline is not None:
        wanted.append(requests.c.pipeline == pipeline)
    statement = select(*_COLUMNS).where(*wanted).order_by(requests.c.id).limit(_PAGE)
    while True:
        # Why by page: a reader that stays open would keep SQLite from emptying its log.
        with db.read() as connection:
            rows = connection.execute(statement.where(requests.c.id > last)).all()
            spent = _load_spent(connection, [row.id for row in rows])
        for row in rows:
            yield _build(row, spent.get(row.id))
        if len(rows) < _PAGE:
            return
        last = rows[-1].id


def _load_spent(connection: Any, ids: Sequence[str]) -> dict[str, float]:
    """Milliseconds of computing by request."""
    spent = func.sum(calls.c.compute_ms)
    statement = select(calls.c.request_id, spent).where(calls.c.request_id.in_(ids)).group_by(calls.c.request_id)
    return {row[0]: row[1] for row in connection.execute(statement) if row[1] is not None}


def _build(row: Any, spent_ms: float | None) -> PastRequest:
    def known(tokens: int) -> int | None:
        # Why: a request that did not end well has no count, and the ledger writes 0.
        return tokens if tokens or row.state == "ok" else None

    return PastRequest(
        at=row.opened_at,
        pipeline=row.pipeline,
        prompt_tokens=known(row.prompt_tokens),
        output_tokens=known(row.output_tokens),
        queue_s=None if row.queue_ms is None else row.queue_ms / 1e3,
        compute_s=None if spent_ms is None else spent_ms / 1e3,
        outcome=row.state,
    )
