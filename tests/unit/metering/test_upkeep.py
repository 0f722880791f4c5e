"""Orphans, old rows and sums."""

from pathlib import Path

import pytest
from sqlalchemy import select

from headgate.core.clock import ManualClock
from headgate.core.errors import HeadgateError
from headgate.core.principal import LOCAL_ADMIN, Principal
from headgate.core.usage import Usage
from headgate.metering import upkeep
from headgate.metering.ledger import Ledger
from headgate.metering.upkeep import Swept, forget_old, settle_lost
from headgate.metering.usage import first_id, sum_calls, sum_requests
from headgate.store.database import Database
from headgate.store.schema import calls, requests
from tests.helpers.database import REPLICA, make_database, make_ids


class House:
    """A database, a clock that stands still, and ledgers that write when told to."""

    def __init__(self, folder: Path) -> None:
        self.db = make_database(folder)
        self.clock = ManualClock()
        self.ids = make_ids(clock=self.clock)

    def record(self, gateway: str, states: list[str], who: Principal = LOCAL_ADMIN, pipeline: str = "p") -> None:
        """One request and call for each of `states`."""
        ledger = Ledger(self.db, self.ids, self.clock, gateway=gateway)
        for state in states:
            row = ledger.open_request(kind="chat", pipeline=pipeline, principal=who, stream=False)
            call = ledger.open_call(row, kind="chat", principal=who, replica=REPLICA)
            if state != "open":
                usage = Usage(prompt_tokens=2, output_tokens=1)
                ledger.settle_call(call, state="error" if state == "refused" else state, usage=usage, compute_ms=4.0)
                ledger.settle_request(row, state=state, status=200, usage=usage, total_ms=8.0)
        batches = ledger._statements.plan_group(list(ledger._entries))
        ledger._writer.write(batches)
        ledger._writer.close()

    def states(self, table=requests) -> list[str]:
        with self.db.read() as connection:
            return sorted(connection.execute(select(table.c.state)).scalars())


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_open_rows_of_dead_gateways_are_lost(house: House) -> None:
    house.record("dead", ["open", "ok"])
    house.record("alive", ["open"])
    assert settle_lost(house.db, house.clock, alive=["alive", "new"]) == Swept(requests=1, calls=1)
    assert settle_lost(house.db, house.clock, alive=["alive"]) == Swept(requests=0, calls=0)
    assert house.states() == house.states(calls) == ["lost", "ok", "open"]
    with house.db.read() as connection:
        row = connection.execute(select(requests).where(requests.c.state == "lost")).one()
    assert row.settled_at == house.clock.now() and row.error_code == "gateway_lost"
    assert settle_lost(house.db, house.clock, alive=[]) == Swept(requests=1, calls=1)


async def test_old_rows_go_in_chunks_and_open_ones_stay(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "_CHUNK", 3)
    house.record("g", ["ok"] * 7 + ["open"])
    await house.clock.advance(2 * 86_400)
    house.record("g", ["ok"] * 2)
    assert forget_old(house.db, house.clock, retention_days=1) == Swept(requests=7, calls=7)
    assert house.states() == house.states(calls) == ["ok", "ok", "open"]


async def test_sums(house: House) -> None:
    ada = Principal(key_id="k", user="ada", team="ops", role="user")
    began = house.clock.now()
    house.record("g", ["ok", "ok", "error", "cancelled", "refused", "open"])
    await house.clock.advance(100)
    house.record("g", ["ok"], who=ada, pipeline="q")
    p, q = sum_requests(house.db, since=began)
    assert (p.by, p.requests, p.open, p.ok, p.failed, p.cancelled, p.refused, p.settled) == ("p", 6, 1, 2, 1, 1, 1, 5)
    assert (p.prompt_tokens, p.output_tokens, p.total_ms, p.queue_ms) == (10, 5, 40.0, 0.0)
    assert (q.by, q.requests) == ("q", 1)
    assert [row.by for row in sum_requests(house.db, since=began, by="user")] == ["local", "ada"]
    assert [row.by for row in sum_requests(house.db, since=began + 1, by="team")] == ["ops"]
    assert [row.by for row in sum_requests(house.db, since=began, until=began + 100)] == ["p"]
    (row,) = sum_calls(house.db, since=began)
    assert (row.by, row.calls, row.open, row.ok, row.failed, row.compute_ms) == (REPLICA.version, 7, 1, 3, 2, 24.0)
    assert sum_requests(house.db, since=began + 1000) == []


def test_calls_add_up_to_requests(house: House) -> None:
    house.record("g", ["ok", "error", "cancelled"] * 5)
    (asked,) = sum_requests(house.db, since=0)
    (worked,) = sum_calls(house.db, since=0, by="kind")
    assert (asked.prompt_tokens, asked.output_tokens) == (worked.prompt_tokens, worked.output_tokens)


def test_ids_sort_with_first_id(house: House) -> None:
    now = house.clock.now()
    assert first_id(now) <= house.ids.new() < first_id(now + 0.001)
    assert first_id(-5) == "0" * 32


def test_a_database_without_tables_is_a_clear_error(tmp_path: Path, house: House) -> None:
    empty = Database(f"sqlite:///{tmp_path / 'empty.db'}")
    with pytest.raises(HeadgateError, match="no Headgate tables"):
        sum_requests(empty, since=0)
