"""What a node learns of waking goes to the profiles of its models."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from headgate.app.learning import Learning
from headgate.app.plan import describe_subject
from headgate.core.clock import ManualClock
from headgate.evaluation.profiles import find_profile, list_profiles
from headgate.store.database import Database, sqlite_url
from headgate.store.migrate import migrate
from headgate.store.schema import versions
from headgate.workers.hardware import load_hardware
from tests.unit.control.world import make_plan


@pytest.fixture
def db(tmp_path: Path) -> Database:
    made = Database(sqlite_url(tmp_path / "headgate.db"))
    migrate(made)
    row = {"digest": "sha256:1", "format": "fake", "task": "generate", "architecture": "fake", "bytes": 0}
    with made.write() as connection:
        connection.execute(versions.insert().values(path="", created_at=0.0, **row))
    return made


async def test_wakes_are_written_every_few_minutes_and_at_the_end(db: Database) -> None:
    clock, plan, hardware = ManualClock(), make_plan(a={}), load_hardware()
    model = plan.models["a"]
    subject = describe_subject(model, hardware)
    wakes = {model.key: 0.5, "a configuration of yesterday": 9.0}
    learning = Learning(db, clock, hardware)
    learning.watch(lambda: (plan, wakes))
    running = asyncio.ensure_future(learning.run())
    await asyncio.sleep(0)
    assert find_profile(db, subject) is None
    await clock.advance(301.0)
    async with asyncio.timeout(5):
        while find_profile(db, subject) is None:
            await asyncio.sleep(0.01)
    wakes[model.key] = 1.5
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    profile = find_profile(db, subject)
    assert profile is not None and profile.load_s == pytest.approx(0.5 + 0.3)
    assert len(list_profiles(db, "sha256:1")) == 1


def test_what_has_not_changed_is_not_written_again(db: Database) -> None:
    clock, plan, hardware = ManualClock(), make_plan(a={}), load_hardware()
    wakes = {plan.models["a"].key: 0.5}
    learning = Learning(db, clock, hardware)
    learning.watch(lambda: (plan, wakes))
    learning.write()
    first = list_profiles(db, "sha256:1")
    learning.write()
    assert list_profiles(db, "sha256:1") == first


def test_a_version_that_is_gone_breaks_nothing(db: Database) -> None:
    with db.write() as connection:
        connection.execute(versions.delete())
    learning = Learning(db, ManualClock(), load_hardware())
    learning.write()
    plan = make_plan(a={})
    learning.watch(lambda: (plan, {plan.models["a"].key: 0.5}))
    learning.write()
    assert list_profiles(db, "sha256:1") == []
