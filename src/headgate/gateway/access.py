"""From an Authorization header to a principal. Deny by default; identity comes from the key alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from headgate.core.clock import Clock
from headgate.core.errors import Forbidden, Unauthorized
from headgate.core.keys import check_shape, hash_key
from headgate.core.principal import Principal, Role

FRESH_S = 1.0  # a revoked key works no longer than this
_MOST_REMEMBERED = 10_000


class Access:
    """Knows keys by their keyed hash, remembering each for a second so that the database is off the hot path."""

    def __init__(self, find: Callable[[str], Principal | None], pepper: bytes, clock: Clock) -> None:
        """`find` looks a keyed hash up: the principal, or None for unknown, revoked and expired keys."""
        self._find = find
        self._pepper = pepper
        self._clock = clock
        self._remembered: dict[str, tuple[float, Principal | None]] = {}

    def principal(self, headers: Iterable[tuple[bytes, bytes]]) -> Principal:
        """Who asks. Raises Unauthorized without a valid key."""
        for name, value in headers:
            if name == b"authorization":
                scheme, _, key = value.decode("latin-1").partition(" ")
                if scheme.lower() != "bearer":
                    break
                return self._known(key.strip())
        raise Unauthorized

    def _known(self, key: str) -> Principal:
        if not check_shape(key):
            raise Unauthorized("That is not a Headgate key. `headgate key create` makes one.")
        hashed = hash_key(key, self._pepper)
        now = self._clock.monotonic()
        known = self._remembered.get(hashed)
        if known is None or now - known[0] > FRESH_S:
            if len(self._remembered) >= _MOST_REMEMBERED:
                self._remembered.clear()
            known = self._remembered[hashed] = (now, self._find(hashed))
        if known[1] is None:
            raise Unauthorized("This key is unknown, revoked or expired. `headgate key create` makes a new one.")
        return known[1]


def require(principal: Principal, *roles: Role) -> None:
    """Return when the principal has one of the roles; admins have all. Raises Forbidden."""
    if principal.role != "admin" and principal.role not in roles:
        raise Forbidden(
            f"A key with role '{principal.role}' may not do that; it needs {' or '.join(roles or ('admin',))}."
        )
