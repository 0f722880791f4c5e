"""Looking at replicas that failed a request: whether they still give an answer. One look at a time for each.

Knows nothing of processes; who is found broken is somebody else's to end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from headgate.core.clock import Clock
from headgate.core.errors import UpstreamFailed

_TRIES = 3
_SILENCE_S = 10.0  # a replica that had a token to give before, and now has none for so long, does not answer
_PAUSE_S = 0.5
_REST_S = 2.0  # gateways tell of one failure for so long; it needs one look, not one for each report


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A replica that failed a request, and how it is looked at.

    `ask` raises UpstreamFailed while there is no answer; `condemn` is told why it counts as broken. Never while it is
    `busy`: one whose slots are all taken gives no answer for minutes, and ending it would end its streams.
    """

    replica: str
    ask: Callable[[], Awaitable[None]]
    busy: Callable[[], bool]
    condemn: Callable[[str], None]


class Looks:
    """All looks under way, by replica."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, suspect: Suspect) -> None:
        """Look at a replica, unless that is being done or was done just now."""
        if suspect.replica not in self._tasks:
            self._tasks[suspect.replica] = asyncio.ensure_future(self._look(suspect))

    def end(self, replica: str) -> None:
        """Stop looking at a replica: it has ended."""
        task = self._tasks.get(replica)
        if task is not None:
            task.cancel()

    def close(self) -> None:
        """Stop all looks."""
        for replica in list(self._tasks):
            self.end(replica)

    async def _look(self, suspect: Suspect) -> None:
        tries = 0
        try:
            while (fault := await self._find_fault(suspect.ask)) is not None:
                tries += 1
                if tries >= _TRIES and not suspect.busy():
                    suspect.condemn(f"was a suspect and {fault}")
                    return
                await self._clock.sleep(_PAUSE_S)
            await self._clock.sleep(_REST_S)
        finally:
            self._tasks.pop(suspect.replica, None)

    async def _find_fault(self, ask: Callable[[], Awaitable[None]]) -> str | None:
        """Why there is no answer; None when there is one."""
        asking = asyncio.ensure_future(ask())
        late = asyncio.ensure_future(self._clock.sleep(_SILENCE_S))
        try:
            await asyncio.wait((asking, late), return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                return f"gave no token in {_SILENCE_S:g} s"
            asking.result()
        except UpstreamFailed as error:
            return f"does not answer ({error.code or error.message})"
        finally:
            asking.cancel()
            late.cancel()
            await asyncio.gather(asking, late, return_exceptions=True)
        return None
