"""Who may ask: keys remembered for a second, roles, nobody by default."""

from __future__ import annotations

import pytest

from headgate.core.chance import SeededChance
from headgate.core.clock import ManualClock
from headgate.core.errors import Forbidden, Unauthorized
from headgate.core.keys import hash_key, make_key
from headgate.core.principal import Principal
from headgate.gateway.access import FRESH_S, Access, require

ME = Principal(key_id="k1", user="me", team="us", role="user")
PEPPER = b"pepper" * 6


class World:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.key = make_key(SeededChance(1)).reveal()
        self.rows = {hash_key(self.key, PEPPER): ME}
        self.looks = 0
        self.access = Access(self.find, PEPPER, self.clock, SeededChance(2))

    def find(self, key_hash: str) -> Principal | None:
        self.looks += 1
        return self.rows.get(key_hash)

    def ask(self, value: str | None) -> Principal:
        headers = [(b"host", b"x")] + ([(b"authorization", value.encode())] if value is not None else [])
        return self.access.principal(headers)


def test_a_key_is_looked_up_once_a_second() -> None:
    world = World()
    for _ in range(5):
        assert world.ask(f"Bearer {world.key}") is ME
    assert world.looks == 1
    assert world.ask(f"bearer {world.key}") is ME


async def test_a_revoked_key_works_no_longer_than_a_second() -> None:
    world = World()
    world.ask(f"Bearer {world.key}")
    world.rows.clear()
    await world.clock.advance(FRESH_S)
    assert world.ask(f"Bearer {world.key}") is ME
    await world.clock.advance(0.001)
    with pytest.raises(Unauthorized):
        world.ask(f"Bearer {world.key}")


@pytest.mark.parametrize("value", [None, "", "Bearer", "Bearer ", "Basic abc", "Bearer hg_short", "Bearer \u00e9"])
def test_what_is_no_key(value: str | None) -> None:
    world = World()
    with pytest.raises(Unauthorized):
        world.ask(value)
    assert world.looks == 0, "what cannot be a key is refused without a look into the database"


def test_a_mistyped_key_is_not_quoted() -> None:
    world = World()
    wrong = world.key[:-1] + ("a" if world.key[-1] != "a" else "b")
    with pytest.raises(Unauthorized) as caught:
        world.ask(f"Bearer {wrong}")
    assert wrong not in caught.value.message and world.key[:20] not in caught.value.message


def test_an_unknown_key_is_remembered_too() -> None:
    world = World()
    other = make_key(SeededChance(9)).reveal()
    for _ in range(3):
        with pytest.raises(Unauthorized):
            world.ask(f"Bearer {other}")
    assert world.looks == 1


def test_roles() -> None:
    require(ME, "user")
    require(Principal(key_id="a", user="a", team="", role="admin"), "scrape")
    for roles in (("scrape",), ()):
        with pytest.raises(Forbidden):
            require(ME, *roles)  # type: ignore[arg-type]
