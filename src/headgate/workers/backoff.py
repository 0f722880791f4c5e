"""How long to wait before a crashed process is started again. Pure; used for node, gateways and replicas
alike.
"""

from __future__ import annotations

from headgate.core.chance import Chance


class Backoff:
    """Doubling waits with jitter, starting anew after a healthy run."""

    def __init__(self, chance: Chance, *, first_s: float, limit_s: float, healthy_s: float) -> None:
        """Waits start at `first_s` seconds, never pass `limit_s`; a run of `healthy_s` seconds clears the
        count.
        """
        self._chance = chance
        self._first_s = first_s
        self._limit_s = limit_s
        self._healthy_s = healthy_s
        self.failures = 0

    def delay_after(self, ran_s: float) -> float:
        """Seconds to wait after a process that ran for `ran_s` seconds ended unasked. Counts the failure.

        Why jitter: replicas that died of one cause must not all load again in one moment.
        """
        self.failures = 1 if ran_s >= self._healthy_s else self.failures + 1
        whole = min(self._limit_s, self._first_s * 2.0 ** min(self.failures - 1, 30))
        return whole * self._chance.uniform(0.75, 1.0)

    def clear(self) -> None:
        """Forget the failures."""
        self.failures = 0
