"""From an Authorization header to a principal. Deny by default; identity comes from the key alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b

from headgate.core.chance import Chance
from headgate.core.clock import Clock
from headgate.core.errors import Forbidden, Unauthorized
from headgate.core.keys import check_shape, hash_key
from headgate.core.principal import Principal, Role

FRESH_S = 1.0  # a revoked key works no longer than this
_MOST_REMEMBERED = 10_000


class Access:
    """Knows keys by their keyed hash, remembering each for a second so that the database is off the hot path."""

    def __init__(self, find: Callable[[str], Principal | None], pepper: bytes, clock: Clock, chance: Chance) -> None:
        """`find` looks a keyed hash up: the principal, or None for unknown, revoked and expired keys."""
        self._find = find
        self._pepper = pepper
        self._clock = clock
        self._mark_key = chance.token_bytes(32)
        self._used: dict[str, float] = {}
        self._remembered: dict[bytes, tuple[float, Principal | None]] = {}

    def principal(self, headers: Iterable[tuple[bytes, bytes]]) -> Principal:
        """Who asks. Raises Unauthorized without a valid key."""
        for name, value in headers:
            if name == b"authorization":
                now = self._clock.monotonic()
                # Why a second hash: the slow keyed one of the database is needed once a second and key, not once a
                # request, and no key stays in memory.
                mark = blake2b(value, key=self._mark_key, digest_size=16).digest()
                known = self._remembered.get(mark)
                if known is None or now - known[0] > FRESH_S:
                    known = (now, self._look_up(value))
                    if len(self._remembered) >= _MOST_REMEMBERED:
                        self._remembered.clear()
                    self._remembered[mark] = known
                if known[1] is None:
                    raise Unauthorized("This key is unknown, revoked or expired. `headgate key create` makes one.")
                return known[1]
        raise Unauthorized

    def _look_up(self, header: bytes) -> Principal | None:
        scheme, _, key = header.decode("latin-1").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not check_shape(key):
            raise Unauthorized("That is no Headgate key. Send 'Authorization: Bearer hg_...'.")
        principal = self._find(hash_key(key, self._pepper))
        if principal is not None:
            self._used[principal.key_id] = self._clock.now()
        return principal

    def take_used(self) -> dict[str, float]:
        """When each key was last seen, in seconds since the epoch, as far as it was since the last call."""
        used, self._used = self._used, {}
        return used


def require(principal: Principal, *roles: Role) -> None:
    """Return when the principal has one of the roles; admins have all. Raises Forbidden."""
    if principal.role != "admin" and principal.role not in roles:
        raise Forbidden(
            f"A key with role '{principal.role}' may not do that; it needs {' or '.join(roles or ('admin',))}."
        )
