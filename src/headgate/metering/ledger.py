"""The ledger of one gateway: each request and engine call on record, opened before the engine is asked.

The event loop only appends entries to a queue; a thread commits them in groups.
While the database cannot be written, entries wait, accepted work goes on and new requests are refused.
Knows nothing of HTTP, of prices or of who may ask.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from contextlib import suppress

from headgate.core.clock import Clock
from headgate.core.errors import HeadgateError, StoreUnavailable
from headgate.core.ids import Ids
from headgate.core.principal import Principal
from headgate.core.table import ReplicaRoute
from headgate.core.usage import Usage
from headgate.metering.entries import (
    OPEN_CALL,
    OPEN_REQUEST,
    SETTLE_CALL,
    SETTLE_REQUEST,
    CallState,
    Entry,
    RequestState,
    Statements,
)
from headgate.store.bulk import Batch, BulkWriter, RowsRefused
from headgate.store.database import Database

_log = logging.getLogger("headgate.metering")

NO_USAGE = Usage()
_GROUP_LIMIT = 512  # entries; about 10 ms of writing: no barrier waits long behind a burst
_PACE_MIN_S = 0.001
_PACE_MAX_S = 0.02
_PACE_PER_REQUEST_S = 0.002
_RETRY_S = 0.25
_PATIENCE_S = 2.0  # how long a barrier may wait for a disk that neither answers nor fails

_BUSY, _WANTS_REQUEST, _WANTS_ANY = range(3)  # what wakes the writing thread


class Ledger:
    """Records requests and calls. Its methods but `close` belong to one thread, the event loop's."""

    def __init__(self, db: Database, ids: Ids, clock: Clock, *, gateway: str, waiting_rows: int = 20_000) -> None:
        """`gateway` is this process's id, new at each start: `settle_lost` finds orphans by it.

        `waiting_rows` is how many entries may wait for the disk before new requests are refused.
        """
        self._ids = ids
        self._clock = clock
        self._gateway = gateway
        self._waiting_rows = waiting_rows
        self._statements = Statements(db)
        self._writer = BulkWriter(db)
        self._entries: deque[Entry] = deque()
        self._open: dict[str, int] = {}  # row id -> how many entries there were when it was opened
        self._appended = 0  # entries ever made; written by the loop
        self._committed = 0  # entries on record; written by the thread
        self._requests = 0
        self._fault: HeadgateError | None = None
        self._closing = False
        self._refused_rows = 0
        self._waiters: list[tuple[int, asyncio.Future[bool], float]] = []
        self._watch: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sleep_state = _BUSY
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)

    def start(self) -> None:
        """Start the writing thread."""
        self._thread.start()

    def open_request(
        self,
        *,
        kind: str,
        pipeline: str,
        principal: Principal,
        stream: bool,
        parent: str | None = None,
        request_id: str | None = None,
    ) -> str:
        """Put a request on record as open; returns its id (`request_id` when given).

        Raises StoreUnavailable, naming the reason, while the database cannot be written.
        """
        if self._fault is not None or self._closing or len(self._entries) >= self._waiting_rows:
            raise self._refusal()
        row_id = self._ids.new() if request_id is None else request_id
        self._append(
            OPEN_REQUEST,
            row_id,
            (
                row_id, parent, kind, pipeline, principal.key_id, principal.user, principal.team,
                self._gateway, stream, self._clock.now(),
            ),
        )  # fmt: skip
        self._open[row_id] = self._appended
        self._requests += 1
        if self._sleep_state:
            self._wake.set()
        return row_id

    def open_call(
        self,
        request_id: str,
        *,
        kind: str,
        principal: Principal,
        replica: ReplicaRoute,
        attempt: int = 0,
        parent: str | None = None,
        adapter: str | None = None,
        price_book: str | None = None,
        energy_tier: str | None = None,
    ) -> str:
        """Put one engine attempt of a request on record as open, before the engine is asked; its id."""
        row_id = self._ids.new()
        self._append(
            OPEN_CALL,
            row_id,
            (
                row_id, request_id, parent, attempt, replica.epoch, self._gateway, replica.id,
                replica.version, replica.engine, adapter, replica.device, replica.pool, principal.key_id,
                principal.user, principal.team, kind, price_book, energy_tier, self._clock.now(),
            ),
        )  # fmt: skip
        self._open[row_id] = self._appended
        if self._sleep_state == _WANTS_ANY:
            self._wake.set()
        return row_id

    def settle_call(
        self,
        call_id: str,
        *,
        state: CallState,
        usage: Usage = NO_USAGE,
        queue_ms: float | None = None,
        compute_ms: float | None = None,
        error_code: str | None = None,
    ) -> bool:
        """Give a call its terminal state; False, and nothing changes, when it is not open here."""
        if self._open.pop(call_id, None) is None:
            return False
        self._append(
            SETTLE_CALL,
            call_id,
            (
                state, self._clock.now(), usage.prompt_tokens, usage.cached_tokens, usage.output_tokens,
                queue_ms, compute_ms, error_code,
            ),
        )  # fmt: skip
        if self._sleep_state == _WANTS_ANY:
            self._wake.set()
        return True

    def settle_request(
        self,
        request_id: str,
        *,
        state: RequestState,
        status: int | None,
        usage: Usage = NO_USAGE,
        error_code: str | None = None,
        queue_ms: float | None = None,
        first_token_ms: float | None = None,
        total_ms: float | None = None,
        attempts: int = 0,
    ) -> bool:
        """Give a request its terminal state; False, and nothing changes, when it is not open here.

        `status` is the HTTP status that the client got.
        """
        if self._open.pop(request_id, None) is None:
            return False
        self._append(
            SETTLE_REQUEST,
            request_id,
            (
                state, status, error_code, self._clock.now(), usage.prompt_tokens, usage.cached_tokens,
                usage.output_tokens, queue_ms, first_token_ms, total_ms, attempts,
            ),
        )  # fmt: skip
        if self._sleep_state == _WANTS_ANY:
            self._wake.set()
        return True

    async def durable(self, row_id: str) -> bool:
        """Wait until the row is on record, safe from a loss of power; for a settled row, until all are.

        False when the database cannot be written now: the entry waits and is written when it can be, so the
        answer to accepted work need not be held back for longer.
        """
        due = self._open.get(row_id, self._appended)
        if self._committed >= due:
            return True
        if self._fault is not None:
            return False
        loop = self._loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        self._waiters.append((due, future, self._clock.monotonic() + _PATIENCE_S))
        if self._watch is None:
            self._watch = loop.call_later(_PATIENCE_S, self._release_late)
        # Why here, after the waiter stands in the list: the thread may have committed since the look above.
        self._release()
        self._wake.set()
        return await future

    @property
    def waiting(self) -> int:
        """Entries that are not on record yet."""
        return self._appended - self._committed

    @property
    def open_rows(self) -> int:
        """Requests and calls of this gateway that have no terminal state yet."""
        return len(self._open)

    @property
    def refused_rows(self) -> int:
        """Rows that the database refused since the start (each one is a defect, and is in the log)."""
        return self._refused_rows

    @property
    def fault(self) -> str | None:
        """Why the database cannot be written now; None when it can."""
        return None if self._fault is None else self._fault.message

    def close(self, timeout_s: float = 10.0) -> int:
        """Write what waits and stop; how many entries could not be written in time. From any thread."""
        self._closing = True
        self._closed.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return self.waiting

    def _append(self, kind: int, row_id: str, values: tuple[object, ...]) -> None:
        self._entries.append((kind, row_id, values))
        self._appended += 1

    def _refusal(self) -> StoreUnavailable:
        if self._closing:
            return StoreUnavailable("this gateway is stopping; send the request again", retry_after_s=1.0)
        fault = self._fault
        reason = fault.message if fault is not None else "the disk is too slow for the ledger"
        message = f"new requests are refused because they cannot be put on record: {reason}"
        return StoreUnavailable(message, retry_after_s=2.0)

    def _release(self) -> None:
        """Wake the barriers whose rows are on record; all of them when the database fails."""
        committed, failed = self._committed, self._fault is not None
        waiting: list[tuple[int, asyncio.Future[bool], float]] = []
        for waiter in self._waiters:
            due, future, _ = waiter
            if future.done():
                continue
            if committed >= due or failed:
                future.set_result(committed >= due)
            else:
                waiting.append(waiter)
        self._waiters = waiting

    def _release_late(self) -> None:
        now = self._clock.monotonic()
        for due, future, until in self._waiters:
            if not future.done() and until <= now:
                future.set_result(self._committed >= due)
        self._release()
        self._watch = None
        if self._waiters and self._loop is not None:
            self._watch = self._loop.call_later(_PATIENCE_S / 2, self._release_late)

    # From here on: the writing thread.

    def _run(self) -> None:
        ended, group_requests, seen_requests = self._clock.monotonic(), 0, 0
        try:
            while self._sleep_until_work():
                self._sleep_until_due(ended, group_requests, seen_requests)
                before = seen_requests
                entries, seen_requests = self._take()
                group_requests = seen_requests - before
                if not self._commit(self._statements.plan_group(entries), len(entries)):
                    return
                ended = self._clock.monotonic()
        except Exception:
            _log.exception("the ledger's thread stopped")
            self._fault = HeadgateError("the ledger's thread stopped; restart this gateway, its log has the reason")
            self._tell_waiters()
        finally:
            self._writer.close()

    def _sleep_until_work(self) -> bool:
        """Sleep until there is an entry, without using the processor; False when closing and none is left."""
        while not self._entries:
            if self._closing:
                return False
            self._sleep_state = _WANTS_ANY
            # Why again: an entry made before the line above woke nobody.
            if not self._entries and not self._closing:
                self._wake.wait()
            self._sleep_state = _BUSY
            self._wake.clear()
        return True

    def _sleep_until_due(self, ended: float, group_requests: int, seen_requests: int) -> None:
        """Let entries gather before the next commit.

        Settlements wait up to 20 ms. New requests wait less, by how many the last group had: a lone client is
        on record before its answer is computed, a crowd shares commits. A barrier shortens the wait to 1 ms.
        """
        began = self._clock.monotonic()
        crowd = min(_PACE_MAX_S, max(_PACE_MIN_S, group_requests * _PACE_PER_REQUEST_S))
        while not self._closing:
            if self._waiters:
                due = ended + _PACE_MIN_S
            elif self._requests != seen_requests:
                due = ended + crowd
            else:
                due = began + _PACE_MAX_S
            pause = due - self._clock.monotonic()
            if pause <= 0 or len(self._entries) >= _GROUP_LIMIT:
                break
            lazy = self._requests == seen_requests
            self._sleep_state = _WANTS_REQUEST if lazy else _BUSY
            # Why again: a request that came before the line above woke nobody.
            if not lazy or self._requests == seen_requests:
                self._wake.wait(pause)
            self._sleep_state = _BUSY
            self._wake.clear()

    def _take(self) -> tuple[list[Entry], int]:
        requests = self._requests
        popleft = self._entries.popleft
        return [popleft() for _ in range(min(len(self._entries), _GROUP_LIMIT))], requests

    def _commit(self, batches: list[Batch], count: int) -> bool:
        """Write one group, trying for as long as it takes; False when closing put an end to that.

        Why the same batches each time: after a broken commit the rows may be there already, just so.
        """
        each = False
        while True:
            try:
                if each:
                    self._refused_rows += self._writer.write_each(batches)
                else:
                    self._writer.write(batches)
                break
            except RowsRefused as error:
                reason = str(error.__cause__).partition("\n")[0]
                _log.error("the ledger leaves out a row that its table refuses: %s", reason)
                each = True
            except HeadgateError as error:
                if self._fault is None:
                    _log.error("the ledger cannot write, new requests are refused: %s", error.message)
                self._fault = error
                self._tell_waiters()
                if self._closing:
                    return False
                self._closed.wait(_RETRY_S)
        if self._fault is not None:
            _log.warning("the ledger writes again")
        self._fault = None
        self._committed += count
        self._tell_waiters()
        return True

    def _tell_waiters(self) -> None:
        if self._waiters and self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended, and its waiters with it
                self._loop.call_soon_threadsafe(self._release)
