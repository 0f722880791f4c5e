"""Headgate's own allocation in lane F: forecasts, tables and solver of allocation/, one setting for all capacities."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.allocation.lane_f import Lane
from headgate.allocation.forecast import Forecasts, Window
from headgate.allocation.punctuality import Service
from headgate.allocation.simulator import kernel
from headgate.allocation.simulator.run import View
from headgate.allocation.targets import Option, Want, choose_targets

SLO_S, ROUTE_S = 0.72, 0.0046
_BASE, _SCALE, _SPREAD = 0.0793016, 0.0685808, 0.422471


def service() -> Service:
    """Lane F's service times as a profile would tell them: mean, variation, and the slack to the SLO."""
    grow = math.exp(_SPREAD**2 / 2)
    mean = _BASE + _SCALE * grow
    deviation = _SCALE * grow * math.sqrt(math.exp(_SPREAD**2) - 1)
    z = np.linspace(-2.7, 2.7, 19)
    chance = np.exp(-z * z / 2) / np.exp(-z * z / 2).sum()
    slack = SLO_S - ROUTE_S - _BASE - _SCALE * np.exp(_SPREAD * z)
    return Service(
        mean_s=mean,
        variation=(deviation / mean) ** 2,
        slack=tuple((float(part), float(seconds)) for part, seconds in zip(chance, slack, strict=True)),
    )


class Headgate:
    """Equal marginal utility over forecast quantiles; the switch is paid for in the near stretch."""

    decide_s = 5.0

    def __init__(self, lane: Lane) -> None:
        """`lane` gives the rules and the number of pipelines; its future is not looked at."""
        rules, pipelines = lane.rules(self.decide_s), lane.jobs
        self._rules = rules
        self._service = service()
        self._forecasts = Forecasts()
        self._names = [f"{number:03}" for number in range(pipelines)]
        self._before = 0.0
        self._prices = None
        # Until a replica started now can serve; what the one that gives way takes to rest is not counted in.
        near_s = max(rules.start_s, rules.decide_s)
        self._windows = (
            Window(begins_s=0.0, ends_s=near_s),
            Window(begins_s=near_s, ends_s=2 * near_s + rules.decide_s),
        )
        self.gaps: list[float] = []

    def decide(self, view: View) -> np.ndarray:
        """The replicas of each pipeline."""
        came = dict(zip(self._names, view.seen[:, kernel.ARRIVED].tolist(), strict=True))
        self._forecasts.learn(came, view.now - self._before)
        self._before = view.now
        if view.now <= 0.0:
            share, rest = divmod(self._rules.budget, len(self._names))
            return np.array([share + (number < rest) for number in range(len(self._names))])
        near, far = self._windows
        wants: list[Want] = []
        for number, name in enumerate(self._names):
            soon, later = self._forecasts.forecast(name, self._windows)
            wants.append(
                Want(
                    service=self._service,
                    near=soon,
                    far=later,
                    near_s=near.ends_s,
                    far_s=far.ends_s - far.begins_s,
                    options=(Option(now=int(view.serving[number] + view.starting[number])),),
                    inside=float(view.queued[number] + view.in_flight[number]),
                    floor=1,
                    cap=self._rules.budget,
                )
            )
        solution = choose_targets(wants, [self._rules.budget], self._prices)
        self._prices = solution.prices
        self.gaps.append(solution.gap)
        return solution.counts
