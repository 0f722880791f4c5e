"""Headgate's own machinery on units that are rented: its forecasts and value curves, and a price on every unit.

With a pool that is never full pipelines do not compete, so the allocation of highest value is each pipeline's own: no
solver is needed for what the solver would say (a test shows that it is the same).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from benchmarks.lanes.elastic import BEGUN, CAME, Look, Units, held_s
from headgate.allocation.arrays import Ints
from headgate.allocation.forecast import Forecasts
from headgate.allocation.punctuality import Service
from headgate.allocation.settings import DEFAULTS, TargetSettings
from headgate.allocation.simulator.service_times import ServiceTimes
from headgate.allocation.targets import Option, Want, value_curves

_SMALLEST, _LARGEST = 4, 256  # units a pipeline may ask for at least and at most
_KNOWN = 200.0  # requests that the mean service time remembers
_FIRST_S = 2.0  # believed service time before any request was served
_GRID = 1.25  # service times are rounded to its powers, and rates in turn, so that pipelines share tables


class Headgate:
    """The highest value less price, decided anew for each pipeline.

    A unit is given back when none was wanted for `calm_s`: the forecast's quantiles end at 98 %, and what comes in one
    of a hundred stretches comes back. A pipeline weighs as the root of the units that its load fills, at least 1.
    """

    wake = True

    def __init__(
        self, units: Units, pipelines: int, *, price: float, calm_s: int = 0, decide_s: int = 10,
        settings: TargetSettings = DEFAULTS,
    ) -> None:  # fmt: skip
        """`price` is the utility that a unit must bring, the same for all pipelines; it and `calm_s` are the knobs."""
        self.decide_s = decide_s
        self.first = np.zeros(pipelines, np.int64)
        self._price = price
        self._settings = settings
        self._units = units
        self._windows = settings.windows(units.start_s, decide_s=decide_s)
        self._forecasts = Forecasts(settings.forecast)
        self._names = [f"{number:05}" for number in range(pipelines)]
        self._service_times = ServiceTimes(np.full(pipelines, _FIRST_S), told=1.0, remembered=_KNOWN)
        self._before = 0
        self._wishes: deque[Ints] = deque(maxlen=1 + calm_s // decide_s)

    def decide(self, look: Look) -> Ints:
        """The units of each pipeline."""
        elapsed_s = float(look.now - self._before)
        self._before = look.now
        self._forecasts.learn(dict(zip(self._names, look.seen[:, CAME].tolist(), strict=True)), elapsed_s)
        self._service_times.add(held_s(look, elapsed_s), look.seen[:, BEGUN])
        wants = [self._want(number, look) for number in range(len(self._names))]
        self._wishes.append(choose(wants, self._settings))
        return np.max(self._wishes, axis=0)

    def _want(self, number: int, look: Look) -> Want:
        near, far = self._windows
        soon, later = self._forecasts.forecast(self._names[number], self._windows)
        service, scale = _service(float(self._service_times.seconds[number]), self._units)
        soon, later = (tuple(rate * scale for rate in rates) for rates in (soon, later))
        inside = int(look.held[number] + look.waiting[number])
        there = int(look.serving[number] + look.starting[number])
        need = max(soon[-1], later[-1]) / service.replica_rate + inside / self._units.slots
        return Want(
            service=service,
            near=soon,
            far=later,
            near_s=near.ends_s,
            far_s=far.ends_s - far.begins_s,
            options=(Option(now=there, cost=self._price),),
            inside=inside,
            weight=max(1.0, later[len(later) // 2] / service.replica_rate) ** 0.5,
            cap=_round_up(max(there, 2.0 * need + 2.0)),
        )


def choose(wants: Sequence[Want], settings: TargetSettings) -> Ints:
    """The replicas [I] of most value less cost, each with one option and all the room it wants."""
    counts = np.zeros(len(wants), np.int64)
    caps = np.array([want.cap for want in wants])
    for cap in np.unique(caps):
        members = np.flatnonzero(caps == cap).tolist()
        loads, values = value_curves([wants[number] for number in members], settings)
        options = [wants[number].options[0] for number in members]
        hold, start, stop, now = np.array([(one.cost, one.start_cost, one.stop_cost, one.now) for one in options]).T
        change = loads - now[:, None]
        costs = loads * hold[:, None] + start[:, None] * change.clip(0) + stop[:, None] * (-change).clip(0)
        counts[members] = (values - costs).argmax(axis=1)
    return counts


@lru_cache(maxsize=4096)
def _rounded(power: int, units: Units) -> Service:
    return Service(mean_s=_GRID**power, variation=1.0, slots=units.slots, slack=((1.0, float(units.wait_s)),))


def _service(mean_s: float, units: Units) -> tuple[Service, float]:
    """The service, its mean rounded, and by what rates grow so that the load stays what it is."""
    service = _rounded(round(math.log(max(mean_s, 0.05)) / math.log(_GRID)), units)
    return service, mean_s / service.mean_s


def _round_up(need: float) -> int:
    """A power of two, so that few sizes of tables are wanted."""
    return min(_LARGEST, max(_SMALLEST, 1 << math.ceil(math.log2(max(need, 1.0)))))
