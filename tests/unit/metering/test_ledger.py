"""The ledger: each row once, barriers, faults and their end."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text

from headgate.core.clock import SystemClock
from headgate.core.errors import StoreUnavailable
from headgate.core.principal import LOCAL_ADMIN
from headgate.core.usage import Usage
from headgate.metering import ledger as module
from headgate.metering.entries import Statements
from headgate.metering.ledger import Ledger
from headgate.metering.settings import MeteringSettings
from headgate.store.bulk import BulkWriter
from headgate.store.database import Database
from headgate.store.schema import calls, requests
from tests.helpers.database import REPLICA, make_database, make_ids


@pytest.fixture
def db(tmp_path: Path) -> Database:
    return make_database(tmp_path)


@pytest.fixture
async def ledger(db: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Ledger]:
    monkeypatch.setattr(module, "_RETRY_S", 0.01)
    ledger = Ledger(db, make_ids(), SystemClock(), gateway="g1")
    ledger._writer = BulkWriter(db, busy_timeout_s=0.02)
    ledger.start()
    yield ledger
    ledger.close()


def _open(ledger: Ledger, **fields: object) -> str:
    return ledger.open_request(**({"kind": "chat", "pipeline": "p", "principal": LOCAL_ADMIN, "stream": True} | fields))


def _call(ledger: Ledger, request: str, **fields: object) -> str:
    return ledger.open_call(request, **({"kind": "chat", "principal": LOCAL_ADMIN, "replica": REPLICA} | fields))


def _rows(db: Database, table=requests) -> list[dict[str, object]]:
    with db.read() as connection:
        return [row._asdict() for row in connection.execute(select(table).order_by(table.c.id))]


async def test_a_row_has_what_it_was_given(ledger: Ledger, db: Database) -> None:
    request = _open(ledger, parent="job", request_id=make_ids(9).new())
    call = _call(ledger, request, attempt=2, parent="call", adapter="lora", price_book="b1", energy_tier="estimated")
    assert ledger.open_rows == 2
    usage = Usage(prompt_tokens=3, cached_tokens=1, output_tokens=2)
    assert ledger.settle_call(call, state="error", usage=usage, queue_ms=1.0, compute_ms=2.0, error_code="crash")
    assert ledger.settle_request(
        request, state="error", status=502, usage=usage, error_code="replica_failed", queue_ms=1.5,
        first_token_ms=2.5, total_ms=3.5, attempts=3,
    )  # fmt: skip
    assert await ledger.durable(request)
    assert (ledger.open_rows, ledger.waiting) == (0, 0)
    (row,) = _rows(db)
    opened, settled = row.pop("opened_at"), row.pop("settled_at")
    assert settled >= opened
    assert row == {
        "id": request, "parent": "job", "kind": "chat", "pipeline": "p", "key_id": "local", "user": "local",
        "team": "local", "gateway": "g1", "state": "error", "status": 502, "error_code": "replica_failed",
        "stream": True, "prompt_tokens": 3, "cached_tokens": 1, "output_tokens": 2, "queue_ms": 1.5,
        "first_token_ms": 2.5, "total_ms": 3.5, "attempts": 3,
    }  # fmt: skip
    (row,) = _rows(db, calls)
    assert row.pop("settled_at") >= row.pop("opened_at")
    assert row == {
        "id": call, "request_id": request, "parent": "call", "attempt": 2, "epoch": 7, "gateway": "g1",
        "replica": "replica-1", "version": REPLICA.version, "engine": "fake", "adapter": "lora", "device": "cpu0",
        "pool": "cpu", "key_id": "local", "user": "local", "team": "local", "kind": "chat", "price_book": "b1",
        "energy_tier": "estimated", "state": "error", "prompt_tokens": 3, "cached_tokens": 1, "output_tokens": 2,
        "queue_ms": 1.0, "compute_ms": 2.0, "error_code": "crash",
    }  # fmt: skip


async def test_a_barrier_means_on_record(ledger: Ledger, db: Database) -> None:
    for _ in range(20):
        request = _open(ledger)
        assert await ledger.durable(request)
        assert request in {row["id"] for row in _rows(db)}
        assert await ledger.durable(request)
    assert {row["state"] for row in _rows(db)} == {"open"}


async def test_only_the_first_settlement_counts(ledger: Ledger, db: Database) -> None:
    request = _open(ledger)
    call = _call(ledger, request)
    assert ledger.settle_call(call, state="ok")
    assert not ledger.settle_call(call, state="error")
    assert not ledger.settle_call("unknown", state="ok")
    assert ledger.settle_request(request, state="cancelled", status=499)
    assert not ledger.settle_request(request, state="ok", status=200)
    await ledger.durable(request)
    assert [row["state"] for row in _rows(db)] == ["cancelled"]


async def test_a_row_settled_at_once_is_written_once(db: Database) -> None:
    ledger = Ledger(db, make_ids(), SystemClock(), gateway="g1")
    request = _open(ledger)
    ledger.settle_request(request, state="refused", status=429)
    batches = Statements(db).plan_group(list(ledger._entries))
    assert [(sql.split()[0], len(rows)) for sql, rows in batches] == [("INSERT", 1)]


_STEPS = st.lists(
    st.tuples(st.sampled_from(["open", "call", "settle_call", "settle", "barrier", "pause"]), st.integers(0, 7)),
    max_size=60,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_STEPS, limit=st.sampled_from([1, 2, 7, 512]))
def test_every_row_is_written_exactly_once(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, steps: list[tuple[str, int]], limit: int
) -> None:
    monkeypatch.setattr(module, "_GROUP_LIMIT", limit)
    db = make_database(tmp_path_factory.mktemp("ledger"))
    ledger = Ledger(db, make_ids(), SystemClock(), gateway="g1")
    want_requests: dict[str, tuple[str, int]] = {}
    want_calls: dict[str, tuple[str, int]] = {}

    async def walk() -> None:
        for number, (step, which) in enumerate(steps):
            request = list(want_requests)[which % len(want_requests)] if want_requests else None
            call = list(want_calls)[which % len(want_calls)] if want_calls else None
            usage = Usage(prompt_tokens=number)
            if step == "open":
                want_requests[_open(ledger)] = ("open", 0)
            elif step == "call" and request:
                want_calls[_call(ledger, request)] = ("open", 0)
            elif step == "settle_call" and call:
                first = want_calls[call][0] == "open"
                assert ledger.settle_call(call, state="ok", usage=usage) == first
                want_calls[call] = ("ok", number) if first else want_calls[call]
            elif step == "settle" and request:
                first = want_requests[request][0] == "open"
                assert ledger.settle_request(request, state="error", status=500, usage=usage) == first
                want_requests[request] = ("error", number) if first else want_requests[request]
            elif step == "barrier" and request:
                assert await ledger.durable(request)
                assert request in {row["id"] for row in _rows(db)}
            else:
                await asyncio.sleep(0)

    ledger.start()
    asyncio.run(walk())
    assert ledger.close() == 0
    assert {row["id"]: (row["state"], row["prompt_tokens"]) for row in _rows(db)} == want_requests
    assert {row["id"]: (row["state"], row["prompt_tokens"]) for row in _rows(db, calls)} == want_calls
    db.close()


async def test_a_locked_database_refuses_new_work_finishes_old_and_recovers(ledger: Ledger, db: Database) -> None:
    accepted = _open(ledger)
    assert await ledger.durable(accepted)
    other = sqlite3.connect(db.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    late = _open(ledger)
    call = _call(ledger, late)
    assert not await ledger.durable(late), "the barrier gives up when the disk does"
    assert "lock for too long" in (ledger.fault or "")
    with pytest.raises(StoreUnavailable, match=r"cannot be put on record.*lock for too long") as caught:
        _open(ledger)
    assert caught.value.retry_after_s and caught.value.status == 503
    assert ledger.settle_call(call, state="ok")
    for row in (late, accepted):
        assert ledger.settle_request(row, state="ok", status=200)
    assert not await ledger.durable(late)
    other.execute("COMMIT")
    other.close()
    await _until(lambda: ledger.waiting == 0)
    assert ledger.fault is None
    assert await ledger.durable(_open(ledger))
    assert [row["state"] for row in _rows(db)] == ["ok", "ok", "open"]


async def _until(happened, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


async def test_a_full_disk_refuses_new_work_and_recovers(ledger: Ledger, db: Database) -> None:
    await ledger.durable(_open(ledger))
    with db.read() as connection:
        pages = connection.execute(text("PRAGMA page_count")).scalar()
    original = ledger._writer._begin

    def tight() -> object:
        connection = original()
        connection.cursor().execute(f"PRAGMA max_page_count={pages}")
        return connection

    ledger._writer._begin = tight
    late = _open(ledger, pipeline="p" * 50_000)
    assert not await ledger.durable(late)
    with pytest.raises(StoreUnavailable, match="disk is full"):
        _open(ledger)
    pages = 1_000_000
    await _until(lambda: ledger.waiting == 0)
    assert len(_rows(db)) == 2


async def test_too_many_waiting_entries_refuse_new_work(db: Database) -> None:
    ledger = Ledger(db, make_ids(), SystemClock(), gateway="g1", waiting_rows=3)
    first = _open(ledger)
    for _ in range(3):
        _call(ledger, first)
    with pytest.raises(StoreUnavailable, match="disk is too slow"):
        _open(ledger)
    assert ledger.settle_request(first, state="ok", status=200)
    ledger.start()
    await _until(lambda: ledger.waiting == 0)
    _open(ledger)
    assert ledger.close() == 0


async def test_a_disk_that_hangs_does_not_hold_answers_for_ever(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE_S", 0.05)
    hang = threading.Event()
    original = ledger._writer.write
    ledger._writer.write = lambda batches: (hang.wait(5), original(batches))
    try:
        request = _open(ledger)
        assert not await ledger.durable(request)
    finally:
        hang.set()
    await _until(lambda: ledger.waiting == 0)
    assert await ledger.durable(request)


async def test_one_bad_row_does_not_stop_the_others(ledger: Ledger, db: Database) -> None:
    good = _open(ledger)
    bad = _open(ledger, pipeline=None)
    other = _open(ledger)
    assert all([await ledger.durable(row) for row in (good, bad, other)])
    assert ledger.refused_rows == 1
    assert {row["id"] for row in _rows(db)} == {good, other}


async def test_closing_writes_what_waits_and_refuses_more(ledger: Ledger, db: Database) -> None:
    rows = [_open(ledger) for _ in range(1000)]
    assert ledger.close() == 0
    assert [row["id"] for row in _rows(db)] == sorted(rows)
    with pytest.raises(StoreUnavailable, match="stopping"):
        _open(ledger)
    assert ledger.close() == 0


async def test_closing_with_a_dead_disk_ends_and_tells(ledger: Ledger, db: Database) -> None:
    other = sqlite3.connect(db.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    _open(ledger)
    assert ledger.close(timeout_s=5.0) == 1
    other.execute("COMMIT")
    other.close()


async def test_a_defect_in_the_thread_is_not_silent(ledger: Ledger) -> None:
    ledger._writer.write = lambda batches: 1 / 0
    request = _open(ledger)
    assert not await ledger.durable(request)
    with pytest.raises(StoreUnavailable, match="thread stopped"):
        _open(ledger)


async def test_a_cancelled_wait_harms_nobody(ledger: Ledger) -> None:
    request = _open(ledger)
    waits = [asyncio.create_task(ledger.durable(request)) for _ in range(3)]
    await asyncio.sleep(0)
    waits[1].cancel()
    assert await waits[0] and await waits[2]


def test_closing_before_the_start_is_no_error(db: Database) -> None:
    assert Ledger(db, make_ids(), SystemClock(), gateway="g1").close() == 0


async def test_an_idle_ledger_uses_no_processor(ledger: Ledger) -> None:
    assert await ledger.durable(_open(ledger))
    await _until(lambda: ledger._sleep_state == module._WANTS_ANY)
    assert not ledger._wake.is_set(), "the thread sleeps without a time limit until an entry comes"


def test_settings() -> None:
    assert MeteringSettings().retention_days == 90.0
    with pytest.raises(ValueError, match="retention_days"):
        MeteringSettings(retention_days=0)
