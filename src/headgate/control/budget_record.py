"""The error budget of rented pipelines on record, so that a node that starts goes on where the last one was.

One row, written once a minute beside the loop and when the node ends: a crash loses what came since. Owns the row;
knows nothing of what a budget is for.
"""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import asdict
from typing import Any

from sqlalchemy import select

from headgate.allocation.error_budget import Balance, ErrorBudget
from headgate.core.clock import Clock
from headgate.core.errors import HeadgateError
from headgate.store.database import Database
from headgate.store.schema import facts

log = logging.getLogger(__name__)

EVERY_S = 60.0
"""Between two looks: what a crash may lose."""

FORGOTTEN_S = 86_400.0
"""A balance that is older belongs to another time: whoever stood still for a day is a new house."""

_FACT = "error_budget"


class BudgetRecord:
    """Loads the balance, and writes it whenever it has changed."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db, self._clock = db, clock
        self._budget: ErrorBudget | None = None
        self._written = Balance()

    def load(self) -> Balance | None:
        """What was kept; None where nothing was, or only what is too old or cannot be read. Raises StoreUnavailable."""
        with self._db.read() as connection:
            row = connection.execute(select(facts).where(facts.c.key == _FACT)).mappings().first()
        if row is None:
            return None
        balance = _read(row["value"])
        if balance is None:
            log.warning("the error budget on record cannot be read; a new one begins")
        elif abs(self._clock.now() - row["updated_at"]) > FORGOTTEN_S:
            log.info("the error budget on record is too old; a new one begins")
            return None
        return balance

    def watch(self, budget: ErrorBudget) -> None:
        """Write the balance of this budget from now on."""
        self._budget, self._written = budget, budget.balance

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await self._clock.sleep(EVERY_S)
                if self._budget is not None:
                    await asyncio.to_thread(self._write, self._budget.balance)
        finally:
            if self._budget is not None:
                self._write(self._budget.balance)

    def _write(self, balance: Balance) -> None:
        """Keep what has changed. Blocks; a database that does not answer is asked again at the next look."""
        if balance == self._written:
            return
        row = {"key": _FACT, "value": asdict(balance), "updated_at": self._clock.now()}
        try:
            with self._db.write() as connection:
                self._db.upsert(connection, facts, row)
        except HeadgateError as error:
            log.warning("the error budget could not be kept: %s", error.message)
            return
        self._written = balance


def _read(value: Any) -> Balance | None:
    """A balance from its row; None when it is none, as when another Headgate wrote it."""
    try:
        balance = Balance(**{name: float(told) for name, told in value.items()})
    except (AttributeError, TypeError, ValueError):
        return None
    return balance if all(map(math.isfinite, asdict(balance).values())) else None
