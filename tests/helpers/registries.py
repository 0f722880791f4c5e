"""Registries on a new database in a temporary folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from headgate.core.chance import SystemChance
from headgate.core.clock import ManualClock
from headgate.core.ids import Ids
from headgate.registry.catalogue import Registry
from headgate.registry.intake import SmokeDouble
from headgate.store.database import Database, sqlite_url
from headgate.store.migrate import migrate


def make_registry(folder: Path, *, smoke: Any = None, clock: ManualClock | None = None, **options: Any) -> Registry:
    """A registry in `folder`; called twice on one folder, the second sees what the first kept."""
    database = Database(sqlite_url(folder / "headgate.db"))
    migrate(database)
    clock = clock or ManualClock(time.time() + 60)  # files made by a test are older
    options.setdefault("wait", lambda _seconds: None)
    ids = Ids(clock, SystemChance())  # several registries on one folder must not make the same ids
    return Registry(
        folder=folder / "models", database=database, clock=clock, ids=ids, smoke=smoke or SmokeDouble(), **options
    )


def kept_files(folder: Path) -> list[str]:
    """All files under the models folder but locks, relative to it."""
    root = folder / "models"
    names = (str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    return sorted(name for name in names if name != "lock" and not name.endswith("/.lock"))
