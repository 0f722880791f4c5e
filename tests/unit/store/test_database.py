"""Connections, transactions and faults."""

import os
import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from headgate.core.errors import ConfigError, StoreRefused, StoreUnavailable
from headgate.store.database import Database, sqlite_url
from headgate.store.schema import facts, replicas
from headgate.store.settings import StoreSettings
from tests.helpers.database import make_database


def _fact(key: str, value: object = 1) -> dict[str, object]:
    return {"key": key, "value": value, "updated_at": 1.0}


def test_the_file_is_private_even_when_it_was_not(tmp_path: Path) -> None:
    path = tmp_path / "headgate.db"
    path.touch(mode=0o644)
    db = make_database(tmp_path)
    with db.write() as connection:
        db.upsert(connection, facts, _fact("a"))
        modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    assert set(modes.values()) == {0o600}, modes


def test_modes_of_a_connection(tmp_path: Path) -> None:
    db = make_database(tmp_path)
    levels = []
    for durable in (False, True, False):
        with db.write(durable=durable) as connection:
            levels.append(connection.execute(text("PRAGMA synchronous")).scalar())
    assert levels == [1, 2, 1]
    with db.read() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
    bulk = db.driver_connection()
    assert bulk.cursor().execute("PRAGMA synchronous").fetchone() == (2,)
    bulk.close()


def test_a_body_that_raises_leaves_nothing(tmp_path: Path) -> None:
    db = make_database(tmp_path)
    with pytest.raises(KeyError), db.write() as connection:
        db.upsert(connection, facts, _fact("a"))
        raise KeyError
    with db.read() as connection:
        assert connection.execute(select(facts)).all() == []


def test_upsert_changes_only_what_it_is_told_to(tmp_path: Path) -> None:
    db = make_database(tmp_path)
    with db.write() as connection:
        db.upsert(connection, facts, [_fact("a", {"n": [1, None]}), _fact("b")])
        db.upsert(connection, facts, {**_fact("a", 2), "updated_at": 9.0}, update=["updated_at"])
        db.upsert(connection, facts, _fact("b", 3), update=[])
        db.upsert(connection, facts, [])
        rows = connection.execute(select(facts).order_by(facts.c.key)).all()
    assert [tuple(row) for row in rows] == [("a", {"n": [1, None]}, 9.0), ("b", 1, 1.0)]


def test_a_reader_sees_one_state_while_a_writer_writes(tmp_path: Path) -> None:
    db = make_database(tmp_path)
    with db.read() as reader:
        assert reader.execute(select(facts)).all() == []
        with db.write() as writer:
            db.upsert(writer, facts, _fact("a"))
        assert reader.execute(select(facts)).all() == []
    with db.read() as reader:
        assert len(reader.execute(select(facts)).all()) == 1


def test_threads_add_without_losing(tmp_path: Path) -> None:
    db = make_database(tmp_path)
    with db.write() as connection:
        db.upsert(connection, facts, _fact("count", 0))

    def add() -> None:
        for _ in range(25):
            with db.write() as connection:
                value = connection.execute(select(facts.c.value)).scalar_one()
                db.upsert(connection, facts, _fact("count", value + 1))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with db.read() as connection:
        assert connection.execute(select(facts.c.value)).scalar_one() == 100


def test_a_lock_held_too_long_is_named(tmp_path: Path) -> None:
    db = make_database(tmp_path, busy_timeout_s=0.05)
    other = sqlite3.connect(tmp_path / "headgate.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="lock for too long"), db.write():
        pass
    other.execute("COMMIT")
    other.close()
    with db.write():
        pass


def test_a_full_disk_is_named_and_passes(tmp_path: Path) -> None:
    db = make_database(tmp_path)
    with db.write() as connection:
        pages = connection.execute(text("PRAGMA page_count")).scalar()
        connection.execute(text(f"PRAGMA max_page_count={pages}"))
    with pytest.raises(StoreUnavailable, match=r"disk is full; free space in "), db.write() as connection:
        db.upsert(connection, facts, _fact("a", "x" * 100_000))
    with db.write() as connection:
        connection.execute(text("PRAGMA max_page_count=100000"))
    with db.write() as connection:
        db.upsert(connection, facts, _fact("a", "x" * 100_000))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nonsense", "not a database URL"),
        ("sqlite://", "must name a file"),
        ("sqlite:///:memory:", "must name a file"),
        ("mysql://localhost/x", "sqlite and postgresql"),
    ],
)
def test_a_bad_url_is_refused(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        Database(url)
    assert caught.value.param == "store.url"


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreRefused, match="does not exist"):
        Database(sqlite_url(tmp_path / "none" / "a.db"))
    with pytest.raises(StoreRefused, match="cannot be opened"):
        Database(sqlite_url(tmp_path))
    (tmp_path / "a.db").write_bytes(b"this is a text, and a rather long one at that" * 100)
    with pytest.raises(StoreRefused, match="not an SQLite database"):
        Database(sqlite_url(tmp_path / "a.db")).check()


def test_no_error_text_shows_a_value(tmp_path: Path) -> None:
    db = make_database(tmp_path)
    with pytest.raises(IntegrityError) as caught, db.write() as connection:
        connection.execute(replicas.insert().values(id="r", secret="do-not-show-me"))
    assert "do-not-show-me" not in str(caught.value)
    with pytest.raises(StoreUnavailable) as refused:
        Database("postgresql://ada:swordfish@/x?host=/nowhere").check()
    assert "swordfish" not in refused.value.message


def test_a_forked_child_opens_its_own_connections(tmp_path: Path) -> None:
    db = make_database(tmp_path)
    child = os.fork()
    if child == 0:
        try:
            with db.write() as connection:
                db.upsert(connection, facts, _fact("child"))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    with db.write() as connection:
        db.upsert(connection, facts, _fact("parent"))
        assert len(connection.execute(select(facts)).all()) == 2


def test_settings_resolve(tmp_path: Path) -> None:
    assert Database(StoreSettings().resolve(tmp_path)).path == tmp_path / "headgate.db"
    given = StoreSettings.model_validate({"url": "postgresql://ada:swordfish@host/x"})
    assert given.resolve(tmp_path) == "postgresql://ada:swordfish@host/x"
    assert "swordfish" not in repr(given)
