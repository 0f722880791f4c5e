"""Headgate's own machinery on units that are rented: chances of being called, and a price by the error budget.

With a pool that is never full pipelines do not compete, and the product's decision gives each what is worth keeping
(tests/unit/allocation/test_rented.py): no solver is needed for what it would say.
"""

from __future__ import annotations

import numpy as np

from benchmarks.lanes.elastic import BEGUN, CAME, LATE, Look, Units, held_s
from headgate.allocation.arrays import Ints
from headgate.allocation.error_budget import PROMISED, ErrorBudget
from headgate.allocation.keep_alive import KeepAlive, Work
from headgate.allocation.simulator.service_times import ServiceTimes

_SERVED = 200.0  # requests that the mean service time remembers
_FIRST_S = 2.0  # believed service time before any request was served


class Headgate:
    """The units of least price and chance of a lost minute, each second.

    `price` is what a unit must bring of a minute within the SLO, each minute, at the begin; with `promised` it follows
    the error budget.
    """

    decide_s, wake = 1, True

    def __init__(self, units: Units, pipelines: int, *, price: float, promised: float | None = PROMISED) -> None:
        """See the class; None: the price stays."""
        self.first = np.zeros(pipelines, np.int64)
        self._units, self._price = units, price
        self._service_times = ServiceTimes(np.full(pipelines, _FIRST_S), told=1.0, remembered=_SERVED)
        self._keep_alive = KeepAlive(pipelines)
        self._budget, self._promised = ErrorBudget(), promised

    @property
    def price(self) -> float:
        """What a unit must bring now."""
        return self._price * (1.0 if self._promised is None else self._budget.factor)

    def decide(self, look: Look) -> Ints:
        """The units of each pipeline."""
        elapsed_s = float(self.decide_s) if look.now else 0.0
        self._service_times.add(held_s(look, self.decide_s), look.seen[:, BEGUN])
        if self._promised is not None:
            self._budget.learn(look.seen[:, CAME], look.seen[:, LATE], elapsed_s, self._promised)
        every = np.ones(len(self.first))
        work = Work(
            came=look.seen[:, CAME],
            inside=(look.held + look.waiting).astype(np.float64),
            service_s=self._service_times.seconds,
            ahead_s=every * (self._units.start_s + self.decide_s),
            wait_s=every * self._units.wait_s,
            slots=every * self._units.slots,
        )
        self._keep_alive.learn(work, elapsed_s)
        return self._keep_alive.choose(every * self.price)
