"""Creating and upgrading the tables."""

import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from headgate.core.errors import StoreRefused
from headgate.store import migrate as module
from headgate.store.database import Database, sqlite_url
from headgate.store.migrate import HEAD, REVISIONS, check_schema, load_revision, migrate
from headgate.store.schema import metadata


def _database(folder: Path, name: str = "headgate.db") -> Database:
    return Database(sqlite_url(folder / name))


def _upgraded(folder: Path) -> Database:
    """A database made by the migrations alone."""
    db = _database(folder, "upgraded.db")
    with db.write() as connection:
        module._upgrade(connection)
    return db


def test_it_makes_the_tables_once(tmp_path: Path) -> None:
    db = _database(tmp_path)
    assert load_revision(db) is None
    with pytest.raises(StoreRefused, match="headgate up"):
        check_schema(db)
    assert migrate(db)
    assert not migrate(db)
    assert load_revision(db) == HEAD
    check_schema(db)


def test_known_revisions_are_those_shipped() -> None:
    config = Config()
    config.set_main_option("script_location", str(module._PATH))
    shipped = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(shipped)) == REVISIONS


def test_migrations_make_what_the_metadata_says(tmp_path: Path) -> None:
    db = _upgraded(tmp_path)
    with db.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
    assert load_revision(db) == HEAD
    assert not migrate(db)


def test_a_new_database_is_the_same_as_a_migrated_one(tmp_path: Path) -> None:
    new = _database(tmp_path)
    migrate(new)
    assert _describe(new) == _describe(_upgraded(tmp_path))


def _describe(db: Database) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    with db.read() as connection:
        tables = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")).scalars()
        for table in list(tables):
            for pragma in ("table_xinfo", "foreign_key_list", "index_list"):
                rows = connection.exec_driver_sql(f"PRAGMA {pragma}({table})")
                found += sorted((table, pragma, *map(str, row[1:])) for row in rows)
        statements = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'index'"))
        found += sorted((name, " ".join((sql or "").split())) for name, sql in statements)
        rowid = text("SELECT name FROM sqlite_master WHERE sql LIKE '%WITHOUT ROWID%' ORDER BY name")
        found += [("without rowid", *connection.execute(rowid).scalars())]
    return found


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    db = _database(tmp_path)
    migrate(db)
    with db.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for way in (migrate, check_schema):
        with pytest.raises(StoreRefused, match=r"schema 9999, made by a newer Headgate.*up to " + HEAD):
            way(db)


def test_another_programs_tables_are_left_alone(tmp_path: Path) -> None:
    db = _database(tmp_path)
    with db.write() as connection:
        connection.execute(text("CREATE TABLE requests (theirs INTEGER)"))
    with pytest.raises(StoreRefused, match="'requests' of another program"):
        migrate(db)
    assert load_revision(db) is None


def test_a_migration_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STAMP", "CREATE TABLE broken (")
    db = _database(tmp_path)
    with pytest.raises(StoreRefused):
        migrate(db)
    monkeypatch.undo()
    with db.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM sqlite_master")).scalar() == 0
    assert migrate(db)


def _migrate_in_child(url: str, start: object, answers: object) -> None:
    start.wait()
    answers.put(migrate(Database(url)))


def test_two_processes_may_start_at_once(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("fork")
    start, answers = spawn.Event(), spawn.Queue()
    url = sqlite_url(tmp_path / "headgate.db")
    children = [spawn.Process(target=_migrate_in_child, args=(url, start, answers)) for _ in range(4)]
    for child in children:
        child.start()
    start.set()
    done = [answers.get(timeout=20) for _ in children]
    for child in children:
        child.join(20)
        assert child.exitcode == 0
    assert sorted(done) == [False, False, False, True]


def test_neither_alembic_nor_the_orm_is_loaded_on_an_ordinary_start(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from headgate.store.database import Database\n"
        "from headgate.store.migrate import migrate\n"
        f"db = Database({sqlite_url(tmp_path / 'headgate.db')!r})\n"
        "assert migrate(db) and not migrate(db)\n"
        "loaded = [name for name in sys.modules if name.split('.')[0] in ('alembic', 'mako', 'pydantic')]\n"
        "loaded += [name for name in sys.modules if name.startswith('sqlalchemy.orm')]\n"
        "sys.exit(', '.join(loaded) or None)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
