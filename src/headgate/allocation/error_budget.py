"""What a minute within the SLO may cost: so much that as many minutes are kept as was promised, and no more.

A promise of 99 % allows one lost minute in a hundred: the error budget. While some of it is left, holding capacity must
bring more; when it is overdrawn, less. Why not a price that somebody sets: nobody knows beforehand what a minute costs
with his load. Pure; the caller says what happened and when.
Source of the term: B. Beyer et al., Site Reliability Engineering, 2016, chapter 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from headgate.allocation.arrays import Floats
from headgate.allocation.keep_alive import LATE_PART, MINUTE_S

PROMISED = 0.99

_MARGIN = 0.0006  # more than was promised is aimed at: budgets swing
_BEGIN_S = 3600.0  # of a house's life that is not counted: it knows nobody yet
_REMEMBERED_MINUTES = 60.0  # for the number of pipelines at work
_SWING_MINUTES = 180.0  # in which what is allowed to be lost moves the price by a factor e
_LEAST_SWING = 5.0  # lost minutes, for houses with few pipelines
_MOST = 64.0  # times dearer or cheaper


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """What a budget has to be remembered by: minutes `left`, the part of minutes that is `allowed` to be lost, how many
    pipelines are `busy` in a minute, and seconds of a house's life that were counted.
    """

    left: float = 0.0
    allowed: float = 0.0
    busy: float = 0.0
    age_s: float = 0.0


class ErrorBudget:
    """Minutes of pipelines that may still be lost, and the `factor` on what holding capacity must bring."""

    def __init__(self) -> None:
        self._allowed = 0.0
        self._age_s = self._minute_s = 0.0
        self._came: Floats = np.zeros(0)
        self._late: Floats = np.zeros(0)
        self._busy = 0.0
        self.left = 0.0
        """Minutes that may be lost; below 0: too many were."""

    @property
    def factor(self) -> float:
        """How many times as much as usual holding capacity must bring."""
        swing = max(_LEAST_SWING, self._allowed * self._busy * _SWING_MINUTES)
        return math.exp(min(max(self.left / swing, -math.log(_MOST)), math.log(_MOST)))

    @property
    def balance(self) -> Balance:
        """As it stands. The minute that has just begun is no part of it."""
        return Balance(left=self.left, allowed=self._allowed, busy=self._busy, age_s=self._age_s)

    def restore(self, balance: Balance) -> None:
        """Go on from a balance that was kept: the house's first hour is not waited for again."""
        self.left, self._allowed, self._busy = balance.left, balance.allowed, balance.busy
        self._age_s = balance.age_s

    def learn(self, came: Floats, late: Floats, elapsed_s: float, promised: float = PROMISED) -> None:
        """Requests [P] that came in the last `elapsed_s` seconds, and those that turned out to be late.

        `promised` is the part of minutes with requests in which no more than LATE_PART of them is late. With another
        number of pipelines than before the minute begins anew.
        """
        if len(came) != len(self._came):
            self._came, self._late, self._minute_s = np.zeros(len(came)), np.zeros(len(came)), 0.0
        self._came, self._late = self._came + came, self._late + late
        self._age_s += elapsed_s
        self._minute_s += elapsed_s
        if self._minute_s < MINUTE_S - 1e-6:
            return
        self._allowed = 1.0 - min(promised + _MARGIN, 1.0)
        lost = int(np.count_nonzero(self._late > LATE_PART * self._came))
        busy = int(np.count_nonzero(self._came))
        self._busy += (busy - self._busy) * -math.expm1(-1.0 / min(_REMEMBERED_MINUTES, self._age_s / MINUTE_S))
        if self._age_s > _BEGIN_S:
            self.left += self._allowed * busy - lost
        self._came[:] = 0.0
        self._late[:] = 0.0
        self._minute_s = 0.0
