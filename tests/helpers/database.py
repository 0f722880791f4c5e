"""Things that tests of several rooms need: ids, a replica's route, a database with its tables."""

from __future__ import annotations

from pathlib import Path

from headgate.core.chance import SeededChance
from headgate.core.clock import Clock, SystemClock
from headgate.core.ids import Ids
from headgate.core.secret import Secret
from headgate.core.table import ReplicaRoute
from headgate.store.database import Database, sqlite_url
from headgate.store.migrate import migrate

REPLICA = ReplicaRoute(
    id="replica-1",
    pipeline="ticket-extract",
    version="sha256:" + "a" * 64,
    engine="fake",
    address="unix:/nowhere",
    secret=Secret("x"),
    epoch=7,
    slots=4,
    device="cpu0",
    pool="cpu",
    share=1.0,
    state="ready",
)


def make_ids(seed: int = 1, clock: Clock | None = None) -> Ids:
    """Ids that repeat with the seed (and the clock)."""
    return Ids(clock or SystemClock(), SeededChance(seed))


def make_database(folder: Path, **options: float) -> Database:
    """A new SQLite database with all tables."""
    db = Database(sqlite_url(folder / "headgate.db"), **options)
    migrate(db)
    return db
