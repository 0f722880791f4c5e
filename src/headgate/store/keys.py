"""API keys as rows: who they belong to, until when they hold. No key itself is ever kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, func, or_, select, update

from headgate.core.chance import Chance
from headgate.core.clock import Clock
from headgate.core.errors import BadRequest, NotFound
from headgate.core.ids import Ids
from headgate.core.keys import hash_key, key_prefix, make_key
from headgate.core.principal import Principal, Role
from headgate.core.secret import Secret
from headgate.store.database import Database
from headgate.store.pepper import forget_pepper
from headgate.store.schema import keys

_NAME_LIMIT = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRow:
    """One key as people may see it: everything but the key. Times in seconds since the epoch (UTC)."""

    id: str
    prefix: str
    user: str
    team: str
    role: Role
    name: str
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    last_used_at: float | None = None

    def active(self, now: float) -> bool:
        """Whether the key may be used at `now`."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    @property
    def principal(self) -> Principal:
        """Who asks when this key is shown."""
        return Principal(key_id=self.id, user=self.user, team=self.team, role=self.role)


def create_key(
    db: Database,
    pepper: bytes,
    *,
    ids: Ids,
    clock: Clock,
    chance: Chance,
    user: str,
    team: str = "default",
    role: Role = "user",
    name: str = "",
    expires_at: float | None = None,
) -> tuple[Secret, KeyRow]:
    """Make a key and record its hash: (the key, shown once; its row).

    Raises BadRequest naming the field that is wrong, StoreUnavailable.
    """
    now = clock.now()
    for field, text in (("user", user), ("team", team), ("name", name)):
        _check_text(field, text)
    if role not in ("admin", "user", "scrape"):
        raise BadRequest(f"role is {role!r}; it must be admin, user or scrape", param="role")
    if expires_at is not None and not now < expires_at < float("inf"):
        raise BadRequest("expires_at lies in the past; give a time to come, or none", param="expires_at")
    key = make_key(chance)
    row = KeyRow(
        id=ids.new(),
        prefix=key_prefix(key.reveal()),
        user=user,
        team=team,
        role=role,
        name=name,
        created_at=now,
        expires_at=expires_at,
    )
    values = {field: getattr(row, field) for field in KeyRow.__dataclass_fields__}
    with db.write(durable=True) as connection:
        connection.execute(keys.insert().values(hash=hash_key(key.reveal(), pepper), **values))
    return key, row


def find_key(db: Database, key_hash: str) -> KeyRow | None:
    """The key with this hash or None; it may be revoked or expired: ask `active`. Raises StoreUnavailable."""
    with db.read() as connection:
        row = connection.execute(select(*_COLUMNS).where(keys.c.hash == key_hash)).one_or_none()
    return None if row is None else _key_row(row)


def list_keys(db: Database, *, now: float | None = None) -> list[KeyRow]:
    """All keys, oldest first; with `now`, only those that may be used then. Raises StoreUnavailable."""
    with db.read() as connection:
        rows = [_key_row(row) for row in connection.execute(select(*_COLUMNS).order_by(keys.c.id))]
    return [row for row in rows if now is None or row.active(now)]


def has_admin_key(db: Database, now: float) -> bool:
    """Whether anybody holds an admin key that may be used at `now`. Raises StoreUnavailable."""
    return any(row.role == "admin" for row in list_keys(db, now=now))


def revoke_key(db: Database, which: str, *, clock: Clock) -> KeyRow:
    """Revoke the key with the id, name or shown prefix `which` and return its row; again is no error.

    Raises NotFound, BadRequest when several keys fit, StoreUnavailable.
    """
    with db.write(durable=True) as connection:
        fits = or_(keys.c.id == which, keys.c.prefix == which, (keys.c.name == which) & (keys.c.name != ""))
        found = [_key_row(row) for row in connection.execute(select(*_COLUMNS).where(fits))]
        live = [row for row in found if row.revoked_at is None]
        if len(live) > 1:
            ids = ", ".join(row.id for row in live)
            raise BadRequest(f"several keys are called {which!r}; name one by its id: {ids}", param="key")
        if not found:
            raise NotFound("no key has that id, name or prefix; `headgate key list` shows them", param="key")
        row = (live or found)[0]
        changed = update(keys).where(keys.c.id == row.id, keys.c.revoked_at.is_(None))
        connection.execute(changed.values(revoked_at=clock.now()))
        return _key_row(connection.execute(select(*_COLUMNS).where(keys.c.id == row.id)).one())


def revoke_all_keys(db: Database, *, clock: Clock) -> int:
    """Revoke every key and forget their pepper; how many were revoked. Raises StoreUnavailable."""
    with db.write(durable=True) as connection:
        count = connection.execute(select(func.count()).where(keys.c.revoked_at.is_(None))).scalar_one()
        connection.execute(update(keys).where(keys.c.revoked_at.is_(None)).values(revoked_at=clock.now()))
        forget_pepper(connection)
    return count


def touch_keys(db: Database, used: Mapping[str, float]) -> None:
    """Record when keys were last used: {key id: seconds since the epoch}. Raises StoreUnavailable."""
    if not used:
        return
    with db.write() as connection:
        for key_id, at in sorted(used.items()):
            older = or_(keys.c.last_used_at.is_(None), keys.c.last_used_at < at)
            connection.execute(update(keys).where(keys.c.id == key_id, older).values(last_used_at=at))


_COLUMNS = [keys.c[field] for field in KeyRow.__dataclass_fields__]


def _key_row(row: Row[Any]) -> KeyRow:
    return KeyRow(**dict(zip(KeyRow.__dataclass_fields__, row, strict=True)))


def _check_text(field: str, text: str) -> None:
    if field != "name" and not text.strip():
        raise BadRequest(f"{field} is empty; say whose key this is", param=field)
    if len(text) > _NAME_LIMIT or not text.isprintable():
        message = f"{field} must be at most {_NAME_LIMIT} printable characters on one line"
        raise BadRequest(message, param=field)
