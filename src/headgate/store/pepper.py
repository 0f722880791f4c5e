"""The installation's pepper: a file of 32 random bytes, readable by its owner, that every key hash needs."""

from __future__ import annotations

import hmac
import os
import stat
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Connection

from headgate.core.chance import Chance
from headgate.core.clock import Clock
from headgate.core.errors import StoreRefused
from headgate.store.database import Database
from headgate.store.schema import facts

PEPPER_FILE = "pepper"
_LENGTH = 32
_FACT = "pepper"


def load_pepper(state: Path) -> bytes | None:
    """The pepper in the state folder, or None when there is no such file.

    Raises StoreRefused when others could have read it, or when it is not a pepper.
    """
    path = state / PEPPER_FILE
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        message = f"{path} cannot be read ({error.strerror}); it must be a plain file of Headgate's user"
        raise StoreRefused(message, param="state") from None
    try:
        about = os.fstat(descriptor)
        if stat.S_IMODE(about.st_mode) & 0o077 or about.st_uid != os.geteuid():
            raise StoreRefused(
                f"{path} is open to others (mode {stat.S_IMODE(about.st_mode):04o}, owner {about.st_uid}) "
                f"and guards every API key. Run: chown {os.geteuid()} {path}; chmod 600 {path}; "
                "if somebody may have copied it, revoke the keys and make new ones",
                param="state",
            )
        pepper = os.read(descriptor, _LENGTH + 1)
    finally:
        os.close(descriptor)
    if len(pepper) != _LENGTH:
        message = f"{path} holds {len(pepper)} bytes instead of {_LENGTH}; restore it from a copy"
        raise StoreRefused(message, param="state")
    return pepper


def open_pepper(db: Database, state: Path, *, chance: Chance, clock: Clock) -> bytes:
    """The pepper that the keys in the database were hashed with; made, atomically, on the first start.

    Raises StoreRefused when the file is missing, damaged, open to others or of another database: with a wrong
    pepper every key would look invalid. Raises StoreUnavailable.
    """
    mark = _load_mark(db)
    pepper = load_pepper(state)
    if pepper is None:
        if mark is not None:
            raise StoreRefused(
                f"{state / PEPPER_FILE} is missing, and without it no API key works; restore it from a copy, "
                "or start over with new keys: headgate key revoke --all",
                param="state",
            )
        pepper = _make_pepper(state / PEPPER_FILE, chance)
    if mark is None:
        with db.write() as connection:
            row = {"key": _FACT, "value": _mark(pepper), "updated_at": clock.now()}
            db.upsert(connection, facts, row, update=[])
        mark = _load_mark(db)
    if mark != _mark(pepper):
        raise StoreRefused(
            f"{state / PEPPER_FILE} is not what this database's keys were made with; restore the right file, "
            "or start over with new keys: headgate key revoke --all",
            param="state",
        )
    return pepper


def forget_pepper(connection: Connection) -> None:
    """Let the next `open_pepper` take or make another pepper. For `revoke_all_keys`."""
    connection.execute(facts.delete().where(facts.c.key == _FACT))


def _load_mark(db: Database) -> str | None:
    with db.read() as connection:
        return connection.execute(facts.select().with_only_columns(facts.c.value).where(facts.c.key == _FACT)).scalar()


def _mark(pepper: bytes) -> str:
    return hmac.digest(pepper, b"headgate: which pepper is this", "sha256").hex()[:16]


def _make_pepper(path: Path, chance: Chance) -> bytes:
    """Write it under another name, then link it: a reader sees all or nothing, and the first maker wins."""
    draft = path.with_name(f"{path.name}.{chance.token_bytes(8).hex()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, chance.token_bytes(_LENGTH))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        with suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
        _sync_folder(path.parent)
    except OSError as error:
        raise StoreRefused(f"{path} cannot be made ({error.strerror}); check the rights on {path.parent}") from None
    pepper = load_pepper(path.parent)
    assert pepper is not None
    return pepper


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
