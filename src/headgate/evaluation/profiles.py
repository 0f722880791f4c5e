"""Profiles as rows: what was measured of a version on this hardware, by how it was run. Measures nothing itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import orjson
from sqlalchemy import select, update

from headgate.allocation.profile import Profile
from headgate.core.clock import Clock
from headgate.engines.engine import ModelOptions
from headgate.store.database import Database
from headgate.store.schema import profiles, versions
from headgate.workers.hardware import HardwareFacts

_LEARNING = 0.3  # weight of a wake time that the control loop has seen beside the one on record


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a profile is of: a version (by digest) on an engine, on this hardware, run with `options`.

    `facts` is any text that changes when the engine's own settings do.
    """

    version: str
    engine: str
    hardware: str
    options: ModelOptions
    facts: str = ""

    @property
    def told(self) -> dict[str, Any]:
        """The options in full. Adapters are in them, because they change speed and memory."""
        return asdict(self.options) | {"settings": dict(self.options.settings)}

    @property
    def digest(self) -> str:
        """A short text that changes with the options and the engine's settings."""
        told = orjson.dumps([self.told, self.facts], option=orjson.OPT_SORT_KEYS, default=str)
        return hashlib.sha256(told).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileRow:
    """One profile with what it is of. Times in seconds since the epoch; `measured_at` is None when only learned."""

    version: str
    engine: str
    hardware: str
    options: str
    told: Mapping[str, Any]
    profile: Profile
    best: bool
    measured_at: float | None
    learned_at: float | None


def describe_hardware(facts: HardwareFacts, *, gpu: bool = False) -> str:
    """What tells this machine's speed from that of others: its processor, and the GPU where a model runs on one.

    How many cores there are is no part of it: a replica's speed is that of the cores it has.
    """
    processor = facts.cpu_model or "unknown processor"
    return f"{processor}, {facts.gpus[0].name}" if gpu and facts.gpus else processor


def save_profile(db: Database, clock: Clock, subject: Subject, profile: Profile, *, best: bool) -> None:
    """Keep what was measured, in place of an older measurement. Raises StoreUnavailable."""
    row = {
        "version": subject.version,
        "engine": subject.engine,
        "hardware": subject.hardware,
        "options": subject.digest,
        "told": subject.told,
        "profile": asdict(profile),
        "best": best,
        "measured_at": clock.now(),
        "learned_at": None,
    }
    with db.write() as connection:
        if best:
            of_version = (profiles.c.version == subject.version) & (profiles.c.hardware == subject.hardware)
            connection.execute(update(profiles).where(of_version).values(best=False))
        db.upsert(connection, profiles, row)


def learn_wake(db: Database, clock: Clock, subject: Subject, load_s: float) -> None:
    """Move the wake time on record towards `load_s` seconds, which a node has seen; begin a record where there is none.

    Of a version that was removed meanwhile nothing is kept. Raises StoreUnavailable.
    """
    key = {
        "version": subject.version,
        "engine": subject.engine,
        "hardware": subject.hardware,
        "options": subject.digest,
    }
    same = [profiles.c[name] == value for name, value in key.items()]
    with db.write() as connection:
        known: dict[str, Any] | None = connection.execute(select(profiles.c.profile).where(*same)).scalar()
        before: float | None = known.get("load_s") if known else None
        learned = load_s if before is None else before + _LEARNING * (load_s - before)
        now = clock.now()
        if known is not None:
            values = {"profile": known | {"load_s": learned}, "learned_at": now}
            connection.execute(update(profiles).where(*same).values(**values))
            return
        if connection.execute(select(versions.c.digest).where(versions.c.digest == subject.version)).first() is None:
            return
        first = {"told": subject.told, "profile": asdict(Profile(load_s=learned)), "best": False}
        row = key | first | {"measured_at": None, "learned_at": now}
        connection.execute(profiles.insert().values(row))


def find_profile(db: Database, subject: Subject) -> Profile | None:
    """What is known of the subject; None when nothing is. Raises StoreUnavailable."""
    rows = list_profiles(db, subject.version, subject.hardware)
    return next((row.profile for row in rows if (row.engine, row.options) == (subject.engine, subject.digest)), None)


def list_profiles(db: Database, version: str, hardware: str | None = None) -> list[ProfileRow]:
    """All profiles of a version, on one hardware where it is named: the best first, then the newest.

    Raises StoreUnavailable.
    """
    wanted = profiles.c.version == version
    if hardware is not None:
        wanted = wanted & (profiles.c.hardware == hardware)
    with db.read() as connection:
        rows = [_profile_row(row) for row in connection.execute(select(profiles).where(wanted)).mappings()]
    return sorted(rows, key=lambda row: (not row.best, -(row.measured_at or 0.0), row.options))


def _profile_row(row: Mapping[Any, Any]) -> ProfileRow:
    values: dict[str, Any] = dict(row)
    values["profile"] = _read(row["profile"])
    return ProfileRow(**values)


def _read(told: Mapping[str, Any]) -> Profile:
    """A profile from its row; what an older or newer Headgate measured beyond ours is left out."""
    known = {name: value for name, value in told.items() if name in Profile.__dataclass_fields__}
    for name in ("slow", "decode_tokens_per_s"):
        known[name] = tuple((count, value) for count, value in known.get(name) or ())
    return Profile(**known)
