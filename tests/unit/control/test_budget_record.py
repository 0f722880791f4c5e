"""The error budget outlives its node: what is kept, when, what a crash loses, and what is not taken back."""

import asyncio
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import update

from headgate.allocation.error_budget import Balance, ErrorBudget
from headgate.control.budget_record import EVERY_S, FORGOTTEN_S, BudgetRecord
from headgate.control.replay import replay
from headgate.core.clock import ManualClock
from headgate.core.errors import StoreUnavailable
from headgate.store.schema import facts
from tests.helpers.database import make_database
from tests.unit.control.world import World, make_plan

BALANCE = Balance(left=3.25, allowed=0.0094, busy=2.5, age_s=9000.0)


@pytest.fixture
def db(tmp_path):
    db = make_database(tmp_path)
    yield db
    db.close()


def spend(budget: ErrorBudget, minutes: int, late: float = 0.0) -> None:
    for _ in range(minutes):
        budget.learn(np.full(20, 10.0), np.full(20, late), 60.0)


async def until(clock: ManualClock, seconds: float, done) -> None:
    """Let time pass, and a thread write what is due."""
    await clock.advance(seconds)
    async with asyncio.timeout(5):
        while not done():
            await asyncio.sleep(0.005)


def watching(db, clock, budget: ErrorBudget) -> BudgetRecord:
    record = BudgetRecord(db, clock)
    record.watch(budget)
    return record


async def end(task) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_crash_loses_at_most_the_last_interval(db):
    clock, budget = ManualClock(), ErrorBudget()
    record = watching(db, clock, budget)
    task = asyncio.ensure_future(record.run())
    await asyncio.sleep(0)
    spend(budget, 200)
    await until(clock, EVERY_S, lambda: BudgetRecord(db, clock).load() is not None)
    kept = budget.balance
    spend(budget, 7)  # not looked at any more
    await clock.advance(EVERY_S - 1.0)
    after = BudgetRecord(db, clock).load()  # what a node that starts now finds
    assert after == kept != budget.balance
    again = ErrorBudget()
    assert after is not None
    again.restore(after)
    assert again.left == pytest.approx(140 * 20 * 0.0094, rel=0.02)
    assert again.factor == pytest.approx(np.exp(again.left / (0.0094 * 20 * 180)), rel=0.02)
    await end(task)
    assert BudgetRecord(db, clock).load() == budget.balance  # but who is told to end writes down the rest


def test_a_budget_goes_on_as_if_its_node_had_not_ended():
    whole, first, second = ErrorBudget(), ErrorBudget(), ErrorBudget()
    spend(whole, 90)
    spend(first, 90)
    second.restore(first.balance)
    for budget in (whole, second):
        spend(budget, 30, late=1.0)  # counted at once: the house's first hour is over
    assert second.balance == whole.balance and second.factor == whole.factor < 1.0


async def test_what_has_not_changed_is_not_written(db):
    clock, budget = ManualClock(), ErrorBudget()
    task = asyncio.ensure_future(watching(db, clock, budget).run())
    await clock.advance(10 * EVERY_S)
    await end(task)
    assert BudgetRecord(db, clock).load() is None  # a house that rents nothing keeps nothing


@pytest.mark.parametrize(("passed_s", "kept"), [(FORGOTTEN_S - 1.0, True), (FORGOTTEN_S + 1.0, False)])
async def test_what_is_too_old_is_dropped(db, passed_s, kept):
    clock = ManualClock()
    watching(db, clock, ErrorBudget())._write(BALANCE)
    await clock.advance(passed_s)
    assert BudgetRecord(db, clock).load() == (BALANCE if kept else None)


@pytest.mark.parametrize("value", ["3.25", None, [1.0], {"left": "x"}, {"left": 1.0, "debt": 2.0}, {"left": "nan"}])
def test_what_cannot_be_read_is_told_and_dropped(db, caplog, value):
    watching(db, ManualClock(), ErrorBudget())._write(BALANCE)
    with db.write() as connection:
        connection.execute(update(facts).values(value=value))
    assert BudgetRecord(db, ManualClock()).load() is None
    assert "cannot be read" in caplog.text


def test_a_database_that_is_away_is_asked_again(db, caplog, monkeypatch):
    record = watching(db, ManualClock(), ErrorBudget())

    def refuse():
        raise StoreUnavailable("the disk is full")

    with monkeypatch.context() as away:
        away.setattr(db, "write", refuse)
        record._write(BALANCE)
    assert "the disk is full" in caplog.text and record.load() is None
    record._write(BALANCE)
    assert record.load() == BALANCE


async def test_decisions_after_a_restart_replay_to_the_byte():
    plan = make_plan(a={}, b={})
    pools = tuple(replace(pool, elastic=True, price_per_hour=3.0) for pool in plan.capacity.pools)
    async with World(replace(plan, capacity=replace(plan.capacity, pools=pools))) as world:
        world.reconciler.demands.rented.budget.restore(replace(BALANCE, left=-40.0))
        for pipeline in "abab":
            world.work = {pipeline: (2, 0)}
            await world.run(4.0)
        rows = list(world.journal.decisions)
    assert any(one["kept"] is not None for row in rows for one in row["state"]["demands"].values())
    assert len(rows) >= 2 and all(replay(row).same for row in rows)
