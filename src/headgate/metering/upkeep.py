"""Upkeep of the ledger's rows: orphans get their terminal state, old rows go. Run by the node, never by a gateway."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import delete, select, update

from headgate.core.clock import Clock
from headgate.metering.usage import first_id
from headgate.store.database import Database
from headgate.store.schema import calls, requests

_CHUNK = 2_000  # rows; some 20 ms of writing, short enough that the gateways' groups hardly wait
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """How many rows were touched."""

    requests: int
    calls: int


def settle_lost(db: Database, clock: Clock, *, alive: Collection[str]) -> Swept:
    """Mark open rows of gateways that are no more as lost; how many.

    `alive` are the ids of all gateways that may still settle their rows (on all machines that share the database),
    those just started among them: a row that was marked is never settled otherwise. Raises StoreUnavailable.
    """
    now = clock.now()
    counts: list[int] = []
    with db.write(durable=True) as connection:
        for table in (calls, requests):
            orphans = update(table).where(table.c.state == "open", table.c.gateway.not_in(list(alive)))
            done = connection.execute(orphans.values(state="lost", settled_at=now, error_code="gateway_lost"))
            counts.append(done.rowcount)
    return Swept(calls=counts[0], requests=counts[1])


def forget_old(db: Database, clock: Clock, *, retention_days: float) -> Swept:
    """Delete settled rows that were opened more than `retention_days` ago, in short transactions; how many.

    Raises StoreUnavailable.
    """
    before = first_id(clock.now() - retention_days * _DAY_S)
    counts: list[int] = []
    for table in (calls, requests):
        counts.append(0)
        while True:
            old = select(table.c.id).where(table.c.id < before, table.c.state != "open").limit(_CHUNK)
            with db.write() as connection:
                done = connection.execute(delete(table).where(table.c.id.in_(old)))
            counts[-1] += done.rowcount
            if done.rowcount < _CHUNK:
                break
    return Swept(calls=counts[0], requests=counts[1])
