"""Decisions on record: read back, explained, and made again to the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from headgate.control.journal import StoreJournal
from headgate.control.replay import list_changes, load_decision, load_decisions, replay, value
from headgate.core.clock import ManualClock
from headgate.core.errors import NotFound
from headgate.store.database import Database
from tests.helpers.database import make_database
from tests.unit.control.world import World, make_plan


@pytest.fixture
async def recorded(tmp_path: Path) -> Database:
    """The decisions of a node whose load goes to and fro, in a database."""
    db = make_database(tmp_path)
    async with World(make_plan(cores=1, a={}, b={})) as world:
        for pipeline in "abab":
            world.work = {pipeline: (2, 0)}
            await world.run(4.0)
        rows = list(world.journal.decisions)
    journal = StoreJournal(db, ManualClock(), decisions_kept=1000)
    for row in rows:
        journal.record_decision(row)
    journal.flush()
    assert len(rows) >= 4
    return db


async def test_the_newest_come_first_and_a_pipelines_own(recorded: Database) -> None:
    everything = load_decisions(recorded, 100)
    numbers = [one["number"] for one in everything]
    assert numbers == sorted(numbers, reverse=True) and numbers[-1] == 1
    assert [one["number"] for one in load_decisions(recorded, 2)] == numbers[:2]
    assert "state" not in everything[0]
    mine = load_decisions(recorded, 100, "b")
    assert 0 < len(mine) < len(everything)
    assert all("b" in [change["pipeline"] for change in list_changes(one)] for one in mine)
    assert load_decisions(recorded, 5, "nobody") == []


async def test_every_recorded_decision_is_made_again_to_the_byte(recorded: Database) -> None:
    for one in load_decisions(recorded, 100):
        found = replay(load_decision(recorded, one["number"]))
        assert found.same and found.again == found.recorded and found.allocation is not None
        told = [(each["pipeline"], each["before"], each["after"], each["reason"]) for each in list_changes(one)]
        assert told == [(each.pipeline, each.before, each.after, each.reason) for each in found.allocation.changes]
        sealed = load_decision(recorded, one["number"])
        assert len(sealed["seal"]) == 64 and not replay(sealed | {"seal": "0" * 64}).same
        more = sealed["state"] | {"demands": {}}
        assert not replay(sealed | {"state": more}).same, "another state, another answer"
    with pytest.raises(NotFound, match="no decision 999"):
        load_decision(recorded, 999)


async def test_what_is_not_on_record_is_reckoned_again(recorded: Database) -> None:
    for one in load_decisions(recorded, 100):
        told = value(recorded, one)
        assert [(each["before"], each["after"]) for each in told["changes"]] == [
            (each["before"], each["after"]) for each in list_changes(one)
        ]
        made = replay(load_decision(recorded, one["number"])).allocation
        assert made is not None and told["gap_to_bound"] == made.gap_to_bound
        assert value(recorded, {**told, "gap_to_bound": 0.5})["gap_to_bound"] == 0.5  # on record: left as it is


async def test_another_state_or_another_answer_is_told(recorded: Database) -> None:
    row = load_decision(recorded, 1)
    other: dict[str, Any] = orjson.loads(orjson.dumps(row))
    other["reason"] = row["reason"].replace("0 -> 1", "0 -> 2")
    assert not replay(other).same
    other = orjson.loads(orjson.dumps(row))
    other["state"]["unheard_of"] = 1
    found = replay(other)
    assert not found.same and found.allocation is None and "unheard_of" in found.again


def test_changes_are_taken_as_told_or_read_from_the_text() -> None:
    assert list_changes({"reason": "x", "changes": [{"pipeline": "a", "gained": 1.0}]}) == [
        {"pipeline": "a", "gained": 1.0}
    ]
    text = "a 0 -> 2: somebody waits; since long; b 1 -> 0: gives way"
    assert list_changes({"reason": text}) == [
        {"pipeline": "a", "before": 0, "after": 2, "reason": "somebody waits; since long"},
        {"pipeline": "b", "before": 1, "after": 0, "reason": "gives way"},
    ]
