"""How long requests take, as seen: a mean for each pipeline that begins with what was told and forgets what is old."""

from __future__ import annotations

import numpy as np

from headgate.allocation.arrays import Floats


class ServiceTimes:
    """Mean seconds of a request, for all pipelines at once."""

    def __init__(self, told_s: Floats, *, told: float, remembered: float) -> None:
        """`told_s` [I] counts as so many requests as `told` says; at most `remembered` requests count at all."""
        self._busy_s, self._served = told_s * told, np.full(len(told_s), told)
        self._remembered = remembered
        self.seconds: Floats = self._busy_s / self._served
        """The means [I]."""

    def add(self, busy_s: Floats, served: Floats) -> None:
        """`served` [I] requests took `busy_s` [I] seconds together."""
        self._busy_s += busy_s
        self._served += served
        forget = np.minimum(1.0, self._remembered / self._served)
        self._busy_s *= forget
        self._served *= forget
        self.seconds = self._busy_s / self._served
