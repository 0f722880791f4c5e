"""The ledger's entries: the columns known when a row opens and when it settles, and their statements.

A row that opened and settled within one group is written once: its OPENING values, then its SETTLING values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from headgate.store.bulk import Batch, insert_sql, settle_sql
from headgate.store.database import Database
from headgate.store.schema import calls, requests

RequestState = Literal["ok", "error", "cancelled", "refused"]
CallState = Literal["ok", "error", "cancelled"]

REQUEST_OPENING = (
    "id", "parent", "kind", "pipeline", "key_id", "user", "team", "gateway", "stream", "opened_at",
)  # fmt: skip
REQUEST_SETTLING = (
    "state", "status", "error_code", "settled_at", "prompt_tokens", "cached_tokens", "output_tokens",
    "queue_ms", "first_token_ms", "total_ms", "attempts",
)  # fmt: skip
CALL_OPENING = (
    "id", "request_id", "parent", "attempt", "epoch", "gateway", "replica", "version", "engine", "adapter",
    "device", "pool", "key_id", "user", "team", "kind", "price_book", "energy_tier", "opened_at",
)  # fmt: skip
CALL_SETTLING = (
    "state", "settled_at", "prompt_tokens", "cached_tokens", "output_tokens", "queue_ms", "compute_ms",
    "error_code",
)  # fmt: skip

_REQUEST_OPEN = ("open", None, None, None, 0, 0, 0, None, None, None, 0)
_CALL_OPEN = ("open", None, 0, 0, 0, None, None, None)

OPEN_REQUEST, OPEN_CALL, SETTLE_CALL, SETTLE_REQUEST = range(4)

Values = tuple[Any, ...]
Entry = tuple[int, str, Values]
"""(one of the four kinds above, id of the row, its opening or settling values)."""


class Statements:
    """The four statements of a group, in the order in which they must run."""

    def __init__(self, db: Database) -> None:
        self._insert_requests = insert_sql(db, requests, REQUEST_OPENING + REQUEST_SETTLING)
        self._insert_calls = insert_sql(db, calls, CALL_OPENING + CALL_SETTLING)
        self._settle_calls = settle_sql(db, calls, CALL_SETTLING)
        self._settle_requests = settle_sql(db, requests, REQUEST_SETTLING)

    def plan_group(self, entries: Sequence[Entry]) -> list[Batch]:
        """The batches that record `entries`, given in the order they happened; empty ones are left out."""
        new_requests: dict[str, Values] = {}
        new_calls: dict[str, Values] = {}
        settled_calls: list[Values] = []
        settled_requests: list[Values] = []
        for kind, row_id, values in entries:
            if kind == OPEN_REQUEST:
                new_requests[row_id] = values + _REQUEST_OPEN
            elif kind == OPEN_CALL:
                new_calls[row_id] = values + _CALL_OPEN
            elif kind == SETTLE_CALL:
                opened = new_calls.get(row_id)
                if opened is None:
                    settled_calls.append((*values, row_id))
                else:
                    new_calls[row_id] = opened[: len(CALL_OPENING)] + values
            else:
                opened = new_requests.get(row_id)
                if opened is None:
                    settled_requests.append((*values, row_id))
                else:
                    new_requests[row_id] = opened[: len(REQUEST_OPENING)] + values
        batches: list[Batch] = [
            (self._insert_requests, list(new_requests.values())),
            (self._insert_calls, list(new_calls.values())),
            (self._settle_calls, settled_calls),
            (self._settle_requests, settled_requests),
        ]
        return [batch for batch in batches if batch[1]]
