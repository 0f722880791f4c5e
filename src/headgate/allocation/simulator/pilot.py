"""Headgate's allocation as a policy of the simulator: the product's forecasts, value curves and solver.

What the simulator leaves out is where replicas sit: nodes, memory, engines' processes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

import numpy as np

from headgate.allocation.arrays import Floats, Ints
from headgate.allocation.forecast import Forecasts, Window
from headgate.allocation.punctuality import Service
from headgate.allocation.settings import DEFAULTS, TargetSettings
from headgate.allocation.simulator import kernel
from headgate.allocation.simulator.run import Rules, View
from headgate.allocation.simulator.service_times import ServiceTimes
from headgate.allocation.targets import Option, Want, choose_targets

_TOLD = 100.0  # requests that what was told of a service counts for
_REMEMBERED = 2000.0  # requests that what was seen of it counts for, at most
_STEPS = 6.0  # to a doubling, by which services are corrected: chance alone must not make them change
# Of a pipeline's weight, the least that the last of n replicas worth keeping brings: n log2(2n / (2n - 1)), which is
# n (log2(1 + n / n) - log2(1 + (n - 1) / n)) of targets.value_curves, falls to this as n grows.
_KEPT_WORTH = 0.5 / math.log(2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """A pipeline as the pilot knows it: how its replicas serve, weight, floor and cap in replicas, class (0 first).

    A replica takes `units` of the budget; `room` requests may wait.
    """

    service: Service
    weight: float = 1.0
    floor: int = 1
    cap: int | None = None
    rank: int = 0
    cost: float = 0.0
    units: float = 1.0
    room: float = math.inf


class Foresight(Protocol):
    """Who says how many requests will come: see forecast.Forecasts."""

    def learn(self, arrivals: Mapping[str, float], elapsed_s: float) -> None:
        """What came to each pipeline in the last `elapsed_s` seconds."""
        ...

    def forecast(self, name: str, windows: Sequence[Window]) -> tuple[tuple[float, ...], ...]:
        """Requests per second of a pipeline at each of forecast.PROBABILITIES, in each window."""
        ...


class Keeper(Protocol):
    """Who says how many replicas are worth keeping alive where capacity is paid for by use: see tenant.Tenant."""

    def keep(self, view: View) -> Ints:
        """The replicas of each pipeline."""
        ...


class Pilot:
    """Equal marginal utility over forecast quantiles, decided anew each time it is asked."""

    def __init__(
        self, charges: Sequence[Charge], rules: Rules, settings: TargetSettings = DEFAULTS,
        keeper: Keeper | None = None,
    ) -> None:  # fmt: skip
        """One charge for each pipeline of the world; `rules` tell how many replicas there may be and how they start.

        With a `keeper` capacity is paid for by use: nobody gets more than it says, and all get that while it suffices.
        """
        self._charges = charges
        self._rules = rules
        self._settings = settings
        self._keeper = keeper
        self._kept: Ints | None = None  # within floors and caps
        self._floors = np.array([charge.floor for charge in charges], np.int64)
        self._caps = np.array([rules.budget if charge.cap is None else charge.cap for charge in charges], np.int64)
        self.forecasts: Foresight = Forecasts(settings.forecast)
        """Another may take its place before the first decision."""
        self._names = [f"{number:05}" for number in range(len(charges))]
        self._before = 0.0
        told_s = np.array([charge.service.mean_s for charge in charges])
        self._service_times = ServiceTimes(told_s, told=_TOLD, remembered=_REMEMBERED)
        self._prices: Floats | None = None
        self._windows = settings.windows(rules.start_s)
        self._start_cost = settings.start_cost(self._windows[1].ends_s)
        self.decide_s = settings.decide_s
        self.gaps: list[float] = []

    def decide(self, view: View) -> Ints:
        """The replicas of each pipeline."""
        came = dict(zip(self._names, view.seen[:, kernel.ARRIVED].tolist(), strict=True))
        self.forecasts.learn(came, view.now - self._before)
        self._before = view.now
        self._service_times.add(view.seen[:, kernel.BUSY_S], view.seen[:, kernel.SETTLED])
        self._kept = None if self._keeper is None else np.clip(self._keeper.keep(view), self._floors, self._caps)
        there = view.serving + view.starting
        inside = view.queued + view.in_flight
        if (plenty := self._find_plenty(view.budget)) is not None:
            return plenty
        some = self._find_members()
        wants = [self._want(number, int(there[number]), float(inside[number])) for number in some.tolist()]
        solution = choose_targets(wants, [view.budget], self._prices, self._settings)
        self._prices = solution.prices
        self.gaps.append(solution.gap)
        if self._keeper is None:
            return self._spend_idle(solution.counts, there, view.budget)
        counts = np.zeros(len(self._charges), np.int64)
        counts[some] = solution.counts  # what lies idle costs nothing, and is left so
        return counts

    def _find_members(self) -> Ints:
        """Pipelines that have a say: all, but for those of which nothing is worth keeping."""
        return np.arange(len(self._charges)) if self._kept is None else np.flatnonzero(self._kept)

    def _find_plenty(self, budget: int) -> Ints | None:
        """What is worth keeping where all of it fits: the solver would say no more, and takes a hundred times as long.

        None where it does not fit, or where one could cost more than a replica that is kept is worth at least.
        """
        if self._kept is None:
            return None
        used = sum(one.units * int(count) for one, count in zip(self._charges, self._kept, strict=True))
        cheap = all(one.cost + self._start_cost < _KEPT_WORTH * one.weight for one in self._charges)
        return self._kept if not used or (cheap and used <= budget) else None

    def _spend_idle(self, counts: Ints, there: Ints, budget: int) -> Ints:
        """`counts` with what would lie idle left where it is, and else given to whoever has least.

        Why here too: a start that does not bring what it costs is none to the solver, but on devices that are paid for
        anyway it takes nothing from anybody.
        """
        counts = counts.copy()
        free = budget - sum(one.units * int(count) for one, count in zip(self._charges, counts, strict=True))
        hungry = [number for number, one in enumerate(self._charges) if one.cost == 0.0]
        while hungry:
            number = min(hungry, key=lambda number: (counts[number] >= there[number], counts[number], number))
            charge = self._charges[number]
            if charge.units > free or counts[number] >= (budget if charge.cap is None else charge.cap):
                hungry.remove(number)
                continue
            counts[number] += 1
            free -= charge.units
        return counts

    def _want(self, number: int, there: int, inside: float) -> Want:
        charge = self._charges[number]
        near, far = self._windows
        soon, later = self.forecasts.forecast(self._names[number], self._windows)
        off = math.log2(self._service_times.seconds[number] / charge.service.mean_s)
        return Want(
            service=_correct(charge.service, round(_STEPS * off)),
            near=soon,
            far=later,
            near_s=near.ends_s,
            far_s=far.ends_s - far.begins_s,
            options=(Option(now=there, units=charge.units, cost=charge.cost, start_cost=self._start_cost),),
            inside=inside,
            room=charge.room,
            kept=0.0 if self._kept is None else float(self._kept[number]),
            weight=charge.weight,
            floor=charge.floor,
            cap=int((self._caps if self._kept is None else self._kept)[number]),
            rank=charge.rank,
        )


@lru_cache(maxsize=1024)
def _correct(service: Service, steps: int) -> Service:
    """The service with its mean so many steps longer, and as much less time to wait."""
    if not steps:
        return service
    longer = 2.0 ** (steps / _STEPS)
    slack = tuple((part, seconds - service.mean_s * (longer - 1.0)) for part, seconds in service.slack)
    return replace(service, mean_s=service.mean_s * longer, slack=slack)
