"""Ids: UUID version 7, so that ids sort by time. Source: RFC 9562 section 5.7."""

from __future__ import annotations

import os
from threading import Lock
from uuid import UUID

from headgate.core.chance import Chance
from headgate.core.clock import Clock

_DRAWN = 20  # hexadecimal digits of chance taken for an id; 19 are used
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}

_line = object()  # another in each forked child


def _leave_line() -> None:
    global _line
    _line = object()


os.register_at_fork(after_in_child=_leave_line)


class Ids:
    """Makes ids from an injected clock and chance. One per process; any thread may ask."""

    def __init__(self, clock: Clock, chance: Chance) -> None:
        self._clock = clock
        self._chance = chance
        self._pool = ""
        self._place = 0
        self._lock = Lock()
        self._line = _line

    def new(self) -> str:
        """A new id: 32 hexadecimal digits, sortable by creation time (milliseconds)."""
        with self._lock:
            place = self._place
            if place + _DRAWN > len(self._pool) or self._line is not _line:
                # Why a pool: one system call for 100 ids keeps ids off the hot path; a forked child must not share it.
                self._pool, self._line, place = self._chance.token_bytes(1000).hex(), _line, 0
            self._place = place + _DRAWN
            drawn = self._pool[place : place + _DRAWN]
        # Why text and not numbers: an id is made three times a request, and slicing costs a third of shifting.
        return f"{int(self._clock.now() * 1000):012x}7{drawn[:3]}{_VARIANT[drawn[3]]}{drawn[4:19]}"


def parse_id(text: str) -> UUID:
    """The UUID that `text` holds. Raises ValueError when it is none."""
    return UUID(hex=text)
