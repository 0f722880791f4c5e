"""Ids: UUID version 7, so that ids sort by time. Source: RFC 9562 section 5.7."""

from __future__ import annotations

import os
from threading import Lock
from uuid import UUID

from headgate.core.chance import Chance
from headgate.core.clock import Clock


class Ids:
    """Makes ids from an injected clock and chance. One per process; any thread may ask."""

    def __init__(self, clock: Clock, chance: Chance) -> None:
        self._clock = clock
        self._chance = chance
        self._pool = b""
        self._pid = os.getpid()
        self._lock = Lock()

    def new(self) -> str:
        """A new id: 32 hexadecimal digits, sortable by creation time (milliseconds)."""
        with self._lock:
            if len(self._pool) < 10 or self._pid != os.getpid():
                # Why a pool: one system call for 100 ids keeps ids off the hot path; a forked child must not share it.
                self._pool, self._pid = self._chance.token_bytes(1000), os.getpid()
            tail, self._pool = self._pool[:10], self._pool[10:]
        milliseconds = int(self._clock.now() * 1000)
        number = (milliseconds << 80) | int.from_bytes(tail, "big")
        number = number & ~(0xF << 76) | (0x7 << 76)
        number = number & ~(0x3 << 62) | (0x2 << 62)
        return f"{number:032x}"


def parse_id(text: str) -> UUID:
    """The UUID that `text` holds. Raises ValueError when it is none."""
    return UUID(hex=text)
