"""Keys as rows."""

from pathlib import Path

import pytest
from sqlalchemy import select

from headgate.core.chance import SeededChance
from headgate.core.clock import ManualClock
from headgate.core.errors import BadRequest, NotFound
from headgate.core.keys import hash_key, make_key
from headgate.store.database import Database
from headgate.store.keys import create_key, find_key, has_admin_key, list_keys, revoke_key, touch_keys
from headgate.store.schema import keys
from tests.helpers.database import make_database, make_ids

PEPPER = b"p" * 32


class Office:
    """Makes keys with names and roles, each from new chance."""

    def __init__(self, folder: Path) -> None:
        self.db = make_database(folder)
        self.clock = ManualClock()
        self.ids = make_ids(clock=self.clock)
        self.chance = SeededChance(4)

    def make(self, **fields: object):
        tools = {"ids": self.ids, "clock": self.clock, "chance": self.chance}
        return create_key(self.db, PEPPER, **({"user": "ada"} | fields), **tools)


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def test_a_key_is_found_by_its_hash_and_never_kept(office: Office) -> None:
    key, row = office.make(team="ops", role="admin", name="laptop", expires_at=office.clock.now() + 60)
    assert find_key(office.db, hash_key(key.reveal(), PEPPER)) == row
    assert row.principal.team == "ops" and row.principal.key_id == row.id and row.prefix == key.reveal()[:9]
    assert find_key(office.db, hash_key(key.reveal(), b"q" * 32)) is None
    assert find_key(office.db, hash_key(make_key(office.chance).reveal(), PEPPER)) is None
    assert key.reveal() not in _everything(office.db)


def _everything(db: Database) -> str:
    with db.read() as connection:
        return "\n".join(map(str, connection.execute(select(keys)).all()))


async def test_a_key_ends(office: Office) -> None:
    _, row = office.make(role="admin", expires_at=office.clock.now() + 60)
    assert has_admin_key(office.db, office.clock.now())
    await office.clock.advance(60)
    assert not row.active(office.clock.now())
    assert not has_admin_key(office.db, office.clock.now())
    assert list_keys(office.db, now=office.clock.now()) == []
    assert list_keys(office.db) == [row]


@pytest.mark.parametrize("by", ["id", "prefix", "name"])
def test_revoking(office: Office, by: str) -> None:
    key, row = office.make(name="laptop")
    office.make(name="other")
    gone = revoke_key(office.db, getattr(row, by), clock=office.clock)
    assert gone.id == row.id and gone.revoked_at == office.clock.now() and not gone.active(office.clock.now())
    assert revoke_key(office.db, row.id, clock=office.clock) == gone
    assert find_key(office.db, hash_key(key.reveal(), PEPPER)) == gone
    assert len(list_keys(office.db, now=office.clock.now())) == 1


def test_revoking_what_is_not_there_or_not_clear(office: Office) -> None:
    office.make(name="twin")
    office.make(name="twin")
    with pytest.raises(NotFound, match="headgate key list"):
        revoke_key(office.db, "nobody", clock=office.clock)
    with pytest.raises(NotFound):
        revoke_key(office.db, "", clock=office.clock)
    with pytest.raises(BadRequest, match="several keys"):
        revoke_key(office.db, "twin", clock=office.clock)
    assert len(list_keys(office.db, now=office.clock.now())) == 2


def test_last_use_never_goes_back(office: Office) -> None:
    _, row = office.make()
    for at in (5.0, 9.0, 7.0):
        touch_keys(office.db, {row.id: at, "unknown": 1.0})
    touch_keys(office.db, {})
    assert list_keys(office.db)[0].last_used_at == 9.0


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"user": " "}, "user"),
        ({"user": "a\nb"}, "user"),
        ({"team": "t" * 129}, "team"),
        ({"role": "owner"}, "role"),
        ({"expires_at": 1.0}, "expires_at"),
        ({"expires_at": float("nan")}, "expires_at"),
        ({"name": "\x1b[31m"}, "name"),
    ],
)
def test_bad_fields_are_named(office: Office, fields: dict[str, object], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        office.make(**fields)
    assert caught.value.param == param
    assert list_keys(office.db) == []
