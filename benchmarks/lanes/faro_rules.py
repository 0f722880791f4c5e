"""Faro's way of carrying wishes out, and the two reactive policies its authors compare with: AIAD and Oneshot.

Source: github.com/beomyeol/faro (src/policy.py, src/autoscaler.py, src/simulation/controller.py), EuroSys'25; constants
of `autoscale_config.yaml`: asked every 10 s, 30 s to go up, 600 s to go down, mean latency of the last 30 s against the
SLO of 720 ms.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from benchmarks.lanes.lane_f import LATE_S, Lane
from headgate.allocation.arrays import Floats, Ints
from headgate.allocation.simulator.run import View
from headgate.allocation.simulator.world import World

LOOK_BACK_S = 30.0
DECIDE_S = 10.0
UP_TICKS = 3  # 30 s
DOWN_TICKS = 60  # 600 s
MOST_REPLICAS = 100
DROPPED_S = 0.0092  # what a dropped request counts in the mean latency: twice through the proxy
_LONGEST_S = 60.0


@dataclass(slots=True, kw_only=True)
class Action:
    """A wish for a job: a change, a factor or a number of replicas; tried again while `trials` last."""

    job: int
    delta: int | None = None
    factor: float | None = None
    target: int | None = None
    trials: int = 1

    def wanted(self, now: int) -> int:
        """The replicas wished for, when there are `now`."""
        if self.factor is not None:
            number = math.ceil(now * self.factor)
        else:
            number = self.target if self.target is not None else now + (self.delta or 0)
        return min(max(1, number), MOST_REPLICAS)


class Executors:
    """Turns wishes into targets as Faro's controller does.

    Targets never add up to more than the cap: releases go first, then jobs in order, each gets what is left. A job
    whose new replicas do not serve yet takes no wish: with a cold start of 35 s AIAD adds one a minute, not every 30 s.
    """

    def __init__(self, lane: Lane) -> None:
        """`lane.capacity` is the cap; every job begins with one replica."""
        self.cap = lane.capacity
        self.target: Ints = np.ones(lane.jobs, np.int64)
        self._kept: list[Action] = []

    def working(self, view: View) -> np.ndarray:
        """By job: whether replicas it was given do not serve yet."""
        return (view.starting > 0) | (view.serving + view.starting < self.target)

    def execute(self, view: View, actions: Iterable[Action]) -> Ints:
        """The new targets."""
        working = self.working(view)
        wishes = [*self._kept, *actions]
        wishes.sort(key=lambda action: action.wanted(int(self.target[action.job])) >= self.target[action.job])
        self._kept = []
        for action in wishes:
            if working[action.job]:
                action.trials -= 1
                if action.trials > 0:
                    self._kept.append(action)
                continue
            delta = action.wanted(int(self.target[action.job])) - int(self.target[action.job])
            over = delta - (self.cap - int(self.target.sum()))
            if delta > 0 and over > 0:
                delta -= over
                if action.trials > 1:
                    self._kept.append(Action(job=action.job, delta=over, trials=action.trials - 1))
            self.target[action.job] += delta
        return self.target.copy()


def mean_latency(world: World, look_back_s: float = LOOK_BACK_S) -> Floats:
    """By job: mean latency (s) of what ended in the last `look_back_s`, dropped ones included; 0 without any."""
    means = np.zeros(len(world.disciplines))
    for job in range(len(means)):
        at, latency = world.requests_of(job)
        low, high = np.searchsorted(at, (world.now - look_back_s - _LONGEST_S, world.now))
        took = np.where(np.isinf(latency[low:high]), DROPPED_S, latency[low:high])
        ended = at[low:high] + took
        recent = took[(ended > world.now - look_back_s) & (ended <= world.now)]
        means[job] = recent.mean() if len(recent) else 0.0
    return means


class Reactive:
    """What AIAD, Oneshot and Faro's short-term rule share: so many ticks above the SLO, or so many below, in a row."""

    decide_s = DECIDE_S

    def __init__(self, lane: Lane, *, down: bool = True) -> None:
        """`down` false: never releases (Faro's short-term rule)."""
        self._counts = np.zeros(lane.jobs, np.int64)
        self._down = down
        self.executors = Executors(lane)

    def decide(self, view: View) -> Ints:
        """The replicas of each pipeline."""
        if view.now < self.decide_s:
            return self.executors.target.copy()
        latency = mean_latency(view.world)
        return self.executors.execute(view, self.wishes(latency, np.arange(len(latency))))

    def wishes(self, latency: Floats, jobs: Iterable[int]) -> list[Action]:
        """What is due now for these jobs."""
        actions: list[Action] = []
        for job in jobs:
            count = self._counts[job]
            if latency[job] > LATE_S:
                count = 1 if count < 0 else count + 1
                due = count >= UP_TICKS
            elif self._down:
                count = -1 if count > 0 else count - 1
                due = -count >= DOWN_TICKS
            else:
                continue
            if due:
                actions.append(self.make_action(int(job), float(latency[job])))
            self._counts[job] = 0 if due else count
        return actions

    def clear(self) -> None:
        """Begin to count anew."""
        self._counts[:] = 0

    def make_action(self, job: int, latency_s: float) -> Action:
        """The wish of a job that is due: here one replica more or less."""
        return Action(job=job, delta=1 if latency_s > LATE_S else -1)


class AIAD(Reactive):
    """Additive increase, additive decrease: one more after 30 s above the SLO, one less after 600 s below, by the mean
    latency of the last 30 s.

    Source: github.com/beomyeol/faro, src/policy.py (AIADPolicy).
    """


class Oneshot(Reactive):
    """As AIAD, but the replicas are multiplied by mean latency / SLO and rounded up, both ways (Ray Serve, HPA style).

    Source: github.com/beomyeol/faro, src/policy.py (OneshotPolicy).
    """

    def make_action(self, job: int, latency_s: float) -> Action:
        """The wish of a job that is due."""
        return Action(job=job, factor=latency_s / LATE_S)
