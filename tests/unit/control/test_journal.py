import asyncio

import pytest

from headgate.control.journal import StoreJournal
from headgate.core.clock import ManualClock
from headgate.core.errors import StoreUnavailable
from tests.helpers.database import make_database


def make_row(name: str, **more):
    row = {
        "id": name, "pipeline": "p", "model": "m", "version": "sha256:1", "engine": "fake", "pool": "cpu",
        "device": "cpu:0", "cores": [0], "share": 0.5, "slots": 2, "context": 64, "address": "unix:/x", "secret": "",
        "epoch": 1, "pid": None, "state": "starting", "created_at": 1.0, "memory_bytes": 5,
    }  # fmt: skip
    return {**row, **more}


def make_decision(number: int):
    return {
        "id": f"d{number}", "at": float(number), "number": number, "trigger": "tick", "state": {"at": 1.5},
        "moves": [{"kind": "start"}], "reason": "because",
    }  # fmt: skip


@pytest.fixture
def db(tmp_path):
    db = make_database(tmp_path)
    yield db
    db.close()


def make_journal(db, kept=100):
    return StoreJournal(db, ManualClock(), decisions_kept=kept)


def test_rows_come_back_and_ended_replicas_do_not(db):
    journal = make_journal(db)
    for name in ("r1", "r2"):
        journal.record_replica(make_row(name))
    journal.record_replica({"id": "r1", "state": "ready", "pid": 7})
    journal.record_replica({"id": "r2", "state": "failed", "exit_code": 1})
    journal.flush()
    assert journal.waiting == 0
    live = journal.load_live()
    assert set(live) == {"r1"} and (live["r1"]["state"], live["r1"]["pid"], live["r1"]["cores"]) == ("ready", 7, [0])


def test_decision_numbers_go_on_and_old_ones_are_dropped(db):
    journal = make_journal(db, kept=20)
    assert journal.last_number() == 0
    for number in range(1, 61):
        journal.record_decision(make_decision(number))
        journal.flush()
    assert make_journal(db).last_number() == 60
    with db.read() as connection:
        count = connection.exec_driver_sql("SELECT count(*) FROM decisions").scalar()
    assert 20 <= count <= 22


async def test_rows_wait_while_the_database_is_away(db, monkeypatch):
    journal = make_journal(db)
    clock = journal._clock
    broken = journal._write

    def refuse(batch):
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(journal, "_write", refuse)
    task = asyncio.ensure_future(journal.run())
    journal.record_replica(make_row("r1"))
    while journal.fault is None:
        await asyncio.sleep(0.001)
    assert journal.waiting == 1
    monkeypatch.setattr(journal, "_write", broken)
    while journal.waiting:
        await clock.advance(1.0)
        await asyncio.sleep(0.001)
    assert journal.fault is None and "r1" in journal.load_live()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_row_that_its_table_refuses_does_not_stop_the_others(db, caplog):
    journal = make_journal(db)
    task = asyncio.ensure_future(journal.run())
    journal.record_replica({"id": "r0", "pipeline": None})
    while journal.waiting:
        await asyncio.sleep(0.001)
    journal.record_replica(make_row("r1"))
    while journal.waiting:
        await asyncio.sleep(0.001)
    assert "could not be recorded" in caplog.text and "r1" in journal.load_live()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
