"""Replicas that leave: how long each may take, and whether it is done. Knows nothing of why they leave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headgate.control.demands import DemandBook
from headgate.core.clock import Clock

_QUIET_S = 3.0  # a node that just started waits this long for gateways before it believes that there are none

Progress = Literal["busy", "drained", "late", "stopping"]


@dataclass(slots=True)
class _Drain:
    """Gateways that know table number `table` send the replica nothing (None: none ever did); `until` bounds the
    wait.
    """

    table: int | None
    until: float
    stopping: bool = False


class Drains:
    """The drains that go on, by replica."""

    def __init__(self, demands: DemandBook, clock: Clock) -> None:
        self._demands = demands
        self._clock = clock
        self._began = clock.monotonic()
        self._drains: dict[str, _Drain] = {}

    def __bool__(self) -> bool:
        return bool(self._drains)

    @property
    def stopping(self) -> set[str]:
        """Those that are being stopped: no way leads back."""
        return {name for name, drain in self._drains.items() if drain.stopping}

    def begin(self, replica: str, *, table: int | None, patience_s: float) -> None:
        """A replica drains from now on, or goes on with it. `table` and patience as above, in seconds from now."""
        self._drains.setdefault(replica, _Drain(table=table, until=self._clock.monotonic() + patience_s))

    def end(self, replica: str) -> None:
        """It is gone, rests, or serves again."""
        self._drains.pop(replica, None)

    def mark_stopping(self, replica: str) -> None:
        """It is being stopped."""
        self._drains[replica].stopping = True

    def progress(self, replica: str) -> Progress:
        """How far its drain is; 'late': it is not done and its time is up."""
        drain = self._drains[replica]
        if drain.stopping:
            return "stopping"
        if self._is_drained(replica, drain):
            return "drained"
        return "busy" if self._clock.monotonic() < drain.until else "late"

    def any_drained(self) -> bool:
        """Whether one of them is done and nobody has looked yet."""
        return any(not drain.stopping and self._is_drained(name, drain) for name, drain in self._drains.items())

    def _is_drained(self, replica: str, drain: _Drain) -> bool:
        if drain.table is None:
            return True
        if not self._demands.gateways:
            return self._clock.monotonic() - self._began >= _QUIET_S
        return self._demands.is_drained(replica, drain.table)
