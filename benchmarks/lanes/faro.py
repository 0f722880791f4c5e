"""Faro (Sum, Fair, FairSum) and the MArk/Cocktail/Barista rule as its authors run it.

Every 300 s a plan from a forecast of seven minutes; between plans one replica more for a job whose mean latency of the
last 30 s has been above the SLO for 30 s. The forecast is ours (`forecast.py`): their networks are not published.
Source: github.com/beomyeol/faro (src/policy.py, src/simulation/controller.py; configurations of
`experiments/.../max_queue_50_one`), EuroSys'25.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np

from benchmarks.lanes.faro_rules import Action, Reactive, mean_latency
from benchmarks.lanes.faro_solver import PROCESSING_S, Division, Goal
from benchmarks.lanes.forecast import Forecast, Future, OwnPast
from benchmarks.lanes.lane_f import LATE_S, Lane
from headgate.allocation.arrays import Floats, Ints
from headgate.allocation.simulator import kernel
from headgate.allocation.simulator.run import View

PLAN_S = 300
STEPS = 7  # minutes ahead
QUANTILES = (0.6, 0.7, 0.8, 0.9)
SLOW_STEPS = 1  # minutes until a new replica serves: 65 s
PLAN_TRIALS = 5


class Planned(ABC):
    """A plan every 300 s (the first after 60 s), the reactive rule every 10 s between."""

    decide_s = 10.0

    def __init__(self, lane: Lane, *, foresight: bool = False) -> None:
        """`foresight`: the true counts instead of a forecast."""
        self.cap = lane.capacity
        self.forecast: Forecast = Future(lane.counts, STEPS) if foresight else OwnPast(lane.jobs, STEPS)
        self._reactive = Reactive(lane, down=False)
        self._minute = np.zeros(lane.jobs)

    def decide(self, view: View) -> Ints:
        """The replicas of each pipeline."""
        executors, now = self._reactive.executors, round(view.now)
        self._minute += view.seen[:, kernel.ARRIVED]
        if now == 0:
            return executors.target.copy()
        if now % 60 == 0:
            self.forecast.add_minute(self._minute)
            self._minute = np.zeros_like(self._minute)
        if now == 60 or now % PLAN_S == 0:
            plan = self.plan(view)
            self._reactive.clear()
            wishes = [Action(job=job, target=int(n), trials=PLAN_TRIALS) for job, n in enumerate(plan)]
            return executors.execute(view, wishes)
        idle = np.flatnonzero(~executors.working(view))
        return executors.execute(view, self._reactive.wishes(mean_latency(view.world), idle))

    @abstractmethod
    def plan(self, view: View) -> Floats | Ints:
        """The replicas of each job until the next plan."""


class MArk(Planned):
    """MArk, Cocktail and Barista as Faro's authors run them: the replicas that the highest of the next seven minutes
    needs, each serving SLO / processing time (720 / 180 ms) requests a second.

    Source: github.com/beomyeol/faro, config/autoscaler/mark.yaml (pred_darts, aggregator max, and the rule `ai`).
    """

    def plan(self, view: View) -> Ints:
        """The replicas of each job until the next plan."""
        del view
        highest = self.forecast.quantile(0.5).max(axis=1) / 60.0
        return np.array([math.ceil(rate * PROCESSING_S / LATE_S) for rate in highest])


class Faro(Planned):
    """Faro: the division with the best relaxed utility of the forecast, by the goal.

    `adaptive`: while replicas are left over, plan again for a higher quantile of the forecast (0.6 to 0.9), and keep
    the last plan that left some.
    """

    def __init__(self, lane: Lane, goal: Goal, *, adaptive: bool = True, foresight: bool = False) -> None:
        """`goal`: 'sum', 'fair' or 'fair_sum'."""
        super().__init__(lane, foresight=foresight)
        self._goal: Goal = goal
        self._adaptive = adaptive and not foresight

    def plan(self, view: View) -> Floats:
        """The replicas of each job until the next plan."""
        found = self._divide(view, QUANTILES[0])
        for quantile in QUANTILES[1:] if self._adaptive and found.sum() < self.cap else ():
            newer = self._divide(view, quantile)
            if newer.sum() >= self.cap:
                break
            found = newer
        return found

    def _divide(self, view: View, quantile: float) -> Floats:
        rates = self.forecast.quantile(quantile) / 60.0
        return Division(rates, view.serving, self.cap, SLOW_STEPS, LATE_S, self._goal).solve()
