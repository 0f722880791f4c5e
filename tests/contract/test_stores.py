"""One suite on both databases. PostgreSQL joins when HEADGATE_TEST_POSTGRES_URL is given or a server is installed."""

import asyncio
import os
import threading
import warnings
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError

from headgate.core.chance import SeededChance, SystemChance
from headgate.core.clock import SystemClock
from headgate.core.errors import StoreRefused, StoreUnavailable
from headgate.core.ids import Ids
from headgate.core.keys import hash_key
from headgate.core.principal import LOCAL_ADMIN
from headgate.core.usage import Usage
from headgate.metering.ledger import Ledger
from headgate.metering.upkeep import forget_old, settle_lost
from headgate.metering.usage import sum_calls, sum_requests
from headgate.store import migrate as migrate_module
from headgate.store.bulk import BulkWriter, RowsRefused, insert_sql, settle_sql
from headgate.store.database import Database, sqlite_url
from headgate.store.keys import create_key, find_key, revoke_key, touch_keys
from headgate.store.migrate import check_schema, load_revision, migrate
from headgate.store.pepper import open_pepper
from headgate.store.schema import calls, decisions, facts, keys, metadata, models, replicas, requests, versions
from tests.helpers.database import REPLICA
from tests.helpers.postgres import find_postgres, run_postgres

_GIVEN = os.environ.get("HEADGATE_TEST_POSTGRES_URL")
KINDS = ["sqlite"]
if _GIVEN or find_postgres():
    KINDS.append("postgresql")
else:
    warnings.warn(
        "PostgreSQL is not tested: install a server (Debian: postgresql) or set HEADGATE_TEST_POSTGRES_URL",
        stacklevel=1,
    )

CLOCK = SystemClock()
IDS = Ids(CLOCK, SystemChance())


@pytest.fixture(scope="module")
def server() -> Generator[str]:
    """The URL of a PostgreSQL server where databases can be made."""
    with ExitStack() as stack:
        yield _GIVEN or stack.enter_context(run_postgres())


@pytest.fixture(params=KINDS)
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Database]:
    """A database without tables."""
    if request.param == "sqlite":
        db = Database(sqlite_url(tmp_path / "headgate.db"), busy_timeout_s=1.0)
        yield db
        db.close()
        return
    url = make_url(request.getfixturevalue("server")).set(drivername="postgresql+psycopg")
    name = f"headgate_test_{IDS.new()}"
    administrator = create_engine(url, isolation_level="AUTOCOMMIT")
    with administrator.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    own = url.set(drivername="postgresql", database=name).render_as_string(hide_password=False)
    db = Database(own, busy_timeout_s=1.0)
    yield db
    db.close()
    with administrator.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    administrator.dispose()


@pytest.fixture
def db(empty: Database) -> Database:
    """A database with all tables."""
    migrate(empty)
    return empty


def test_migrations_and_metadata_agree(empty: Database) -> None:
    with empty.write() as connection:
        migrate_module._upgrade(connection)
    with empty.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
    assert not migrate(empty)


def test_many_starts_at_once(empty: Database) -> None:
    results: list[bool] = []
    url = empty.url.render_as_string(hide_password=False)
    threads = [threading.Thread(target=lambda: results.append(migrate(Database(url)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False, False, False, True]
    check_schema(empty)
    with empty.read() as connection:
        assert set(inspect(connection).get_table_names()) == {*metadata.tables, "alembic_version"}


def test_a_newer_schema_is_refused(db: Database) -> None:
    with db.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreRefused, match="newer Headgate"):
        migrate(db)
    assert load_revision(db) == "9999"


def test_values_come_back_as_they_were(db: Database) -> None:
    digest = "sha256:" + "0" * 64
    version = {
        "digest": digest, "format": "gguf", "task": "generate", "architecture": "llama", "parameters": 2**40,
        "context": 8192, "bytes": 2**41, "path": "/models/ü", "header": {"kv_heads": [1, 0], "x": None},
        "created_at": 1_700_000_000.123456,
    }  # fmt: skip
    replica = {
        "id": "r", "pipeline": "p", "model": "m", "version": digest, "engine": "fake", "pool": "cpu", "device": "cpu0",
        "cores": [0, 3], "share": 0.25, "slots": 4, "context": 1024, "address": "unix:/x", "secret": "s",
        "epoch": 2**40, "state": "starting", "created_at": 1.5,
    }  # fmt: skip
    decision = {
        "id": "d",
        "at": 2.5,
        "number": 1,
        "trigger": "load",
        "state": {},
        "moves": [],
        "reason": "none",
        "seal": None,
    }
    with db.write(durable=True) as connection:
        connection.execute(versions.insert().values(version))
        connection.execute(models.insert().values(name="m", current_digest=digest, created_at=1.0))
        connection.execute(replicas.insert().values(replica))
        connection.execute(decisions.insert().values(decision))
        db.upsert(connection, facts, [{"key": key, "value": value, "updated_at": 1.0} for key, value in _FACTS.items()])
    with db.read() as connection:
        row = connection.execute(select(versions)).one()._asdict()
        assert {key: row[key] for key in version} == version and row["licence"] is None and row["origin"] == ""
        row = connection.execute(select(replicas)).one()._asdict()
        assert {key: row[key] for key in replica} == replica and row["pid"] is None
        assert connection.execute(select(decisions)).one()._asdict() == decision
        assert {row.key: row.value for row in connection.execute(select(facts))} == _FACTS


_FACTS: dict[str, object] = {"text": "5", "number": 5, "real": 0.5, "null": None, "list": [1, "ß"], "yes": True}


def test_a_model_needs_its_version(db: Database) -> None:
    with pytest.raises(IntegrityError), db.write() as connection:
        connection.execute(models.insert().values(name="m", current_digest="sha256:none", created_at=1.0))


def test_upsert(db: Database) -> None:
    with db.write() as connection:
        for value, update in ((1, None), (2, None), (3, []), (4, ["updated_at"])):
            db.upsert(connection, facts, {"key": "a", "value": value, "updated_at": value}, update=update)
        row = connection.execute(select(facts)).one()
    assert (row.value, row.updated_at) == (2, 4.0)


def test_named_locks_exclude(db: Database) -> None:
    inside: list[int] = []
    seen: list[int] = []

    def work() -> None:
        for _ in range(5):
            with db.write() as connection:
                db.lock(connection, "count")
                inside.append(1)
                seen.append(len(inside))
                connection.execute(select(facts)).all()
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 15


def test_keys(db: Database, tmp_path: Path) -> None:
    pepper = open_pepper(db, tmp_path, chance=SeededChance(1), clock=CLOCK)
    assert open_pepper(db, tmp_path, chance=SeededChance(2), clock=CLOCK) == pepper
    key, row = create_key(db, pepper, ids=IDS, clock=CLOCK, chance=SeededChance(3), user="ada", name="laptop")
    assert find_key(db, hash_key(key.reveal(), pepper)) == row
    touch_keys(db, {row.id: 7.0})
    assert revoke_key(db, "laptop", clock=CLOCK).last_used_at == 7.0
    with pytest.raises(IntegrityError), db.write() as connection:
        values = {name: getattr(row, name) for name in row.__dataclass_fields__}
        connection.execute(keys.insert().values({**values, "id": "another", "hash": hash_key(key.reveal(), pepper)}))


def test_a_group_is_written_whole_or_not_at_all(db: Database) -> None:
    writer = BulkWriter(db)
    columns = tuple(column.name for column in requests.c)
    insert = insert_sql(db, requests, columns)
    settle = settle_sql(db, requests, ("state", "status"))
    good = {column: None for column in columns} | {
        "id": "a", "kind": "chat", "pipeline": "p", "key_id": "k", "user": "u", "team": "t", "gateway": "g",
        "state": "open", "stream": False, "opened_at": 1.0, "prompt_tokens": 0, "cached_tokens": 0,
        "output_tokens": 0, "attempts": 0,
    }  # fmt: skip
    bad = good | {"id": "b", "pipeline": None}
    group = [(insert, [tuple(good.values()), tuple(bad.values())]), (settle, [("ok", 200, "a")])]
    with pytest.raises(RowsRefused):
        writer.write(group)
    assert _states(db) == {}
    assert writer.write_each(group) == 1
    assert _states(db) == {"a": "ok"}
    writer.write([(insert, [tuple(good.values())]), (settle, [("error", 500, "a")])])
    assert _states(db) == {"a": "ok"}, "a second time changes nothing"
    writer.close()


def _states(db: Database) -> dict[str, str]:
    with db.read() as connection:
        return {row.id: row.state for row in connection.execute(select(requests))}


async def test_the_ledger(db: Database) -> None:
    ledger = Ledger(db, IDS, CLOCK, gateway="g1")
    ledger.start()
    began = CLOCK.now()
    usage = Usage(prompt_tokens=10, cached_tokens=2, output_tokens=5)

    async def one(number: int) -> None:
        request = ledger.open_request(kind="chat", pipeline=f"p{number % 2}", principal=LOCAL_ADMIN, stream=True)
        call = ledger.open_call(request, kind="chat", principal=LOCAL_ADMIN, replica=REPLICA)
        if number % 3 == 0:
            assert await ledger.durable(request)
            assert request in await asyncio.to_thread(_states, db)
        if number == 19:
            return
        assert ledger.settle_call(call, state="ok", usage=usage, compute_ms=2.0)
        assert ledger.settle_request(request, state="ok", status=200, usage=usage, total_ms=3.0, attempts=1)
        assert not ledger.settle_request(request, state="error", status=500)

    await asyncio.gather(*(one(number) for number in range(20)))
    assert ledger.close() == 0
    sums = {row.by: row for row in sum_requests(db, since=began)}
    assert {name: (row.requests, row.ok, row.open) for name, row in sums.items()} == {
        "p0": (10, 10, 0),
        "p1": (10, 9, 1),
    }
    assert (sums["p0"].prompt_tokens, sums["p0"].total_ms) == (100, 30.0)
    (total,) = sum_calls(db, since=began, until=CLOCK.now() + 1, by="engine")
    assert (total.by, total.calls, total.open, total.output_tokens, total.compute_ms) == ("fake", 20, 1, 95, 38.0)
    assert sum_requests(db, since=began - 10, until=began) == []

    assert settle_lost(db, CLOCK, alive=["g1"]).requests == 0
    swept = settle_lost(db, CLOCK, alive=["g2"])
    assert (swept.requests, swept.calls) == (1, 1)
    assert sorted(_states(db).values()) == ["lost"] + ["ok"] * 19
    assert forget_old(db, CLOCK, retention_days=1).requests == 0
    gone = forget_old(db, CLOCK, retention_days=-1)
    assert (gone.requests, gone.calls) == (20, 20)


async def test_the_ledger_outlives_a_broken_connection(db: Database) -> None:
    if db.dialect == "sqlite":
        pytest.skip("a file has no connection that a server could end")
    ledger = Ledger(db, IDS, CLOCK, gateway="g1")
    ledger.start()
    rows: list[str] = []
    for _ in range(3):
        rows.append(ledger.open_request(kind="chat", pipeline="p", principal=LOCAL_ADMIN, stream=True))
        assert await ledger.durable(rows[-1])
        with db.write() as connection:
            others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            connection.execute(text(f"SELECT pg_terminate_backend(pid) {others}"))
        rows.append(ledger.open_request(kind="chat", pipeline="p", principal=LOCAL_ADMIN, stream=True))
        await ledger.durable(rows[-1])
        assert ledger.settle_request(rows[-1], state="ok", status=200)
        for _ in range(500):
            if not ledger.waiting:
                break
            await asyncio.sleep(0.01)
    assert ledger.fault is None and ledger.close() == 0
    assert _states(db) == {row: "ok" if number % 2 else "open" for number, row in enumerate(rows)}


def test_no_server_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"postgresql.*does not answer"):
        Database(f"postgresql://ada@/x?host={tmp_path}").check()


def test_every_table_has_its_columns(db: Database) -> None:
    with db.read() as connection:
        for table in metadata.tables.values():
            connection.execute(select(table).limit(1)).all()
        assert calls.c.energy_tier is not None
