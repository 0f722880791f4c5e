"""Policies of others, in the form the simulator asks: equal share, load-proportional, HPA, KPA, Ray Serve, Wallaroo.

Each has the constants its source publishes. Wishes above the budget wait for a place, as pending pods do.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from benchmarks.allocation.lane_f import Lane
from benchmarks.allocation.traces import WORK_LEAST_S, WORK_SCALE_S, WORK_SHAPE
from headgate.allocation.simulator import kernel
from headgate.allocation.simulator.run import View
from headgate.allocation.simulator.world import Ints

WORK_S = WORK_LEAST_S + WORK_SCALE_S * math.exp(WORK_SHAPE**2 / 2)
"""Mean seconds of work of a request."""


class EqualShare:
    """Every job has the same number of replicas from the start, rounded down; the rest stays unused.

    Source: Faro's FairShare (github.com/beomyeol/faro, job_specs_fairshare.yaml).
    """

    def __init__(self, lane: Lane) -> None:
        """`lane.capacity` is shared."""
        self.first = (lane.capacity // lane.jobs,) * lane.jobs

    def decide(self, view: View) -> Ints:
        """The replicas of each pipeline."""
        return view.target


class HPA:
    """Kubernetes' horizontal autoscaler on utilisation, at its defaults; KEDA hands its metrics to the same rule.

    Wanted: ceil(replicas * utilisation / 70 %), unchanged within 10 % of the target; replicas that do not serve yet
    count as idle when it goes up; at most doubled or 4 more in 15 s; down to the highest wish of the last 300 s.
    Source: kubernetes.io, "Horizontal Pod Autoscaling" (algorithm details, default behaviour); 70 % as in the survey.
    """

    decide_s = 15.0
    wanted_share = 0.7
    tolerance = 0.1
    look_back_s = 300.0

    def __init__(self, lane: Lane) -> None:
        """`lane` gives the number of pipelines."""
        self._wishes: deque[Ints] = deque(maxlen=int(self.look_back_s / self.decide_s))
        self._asked = False

    def decide(self, view: View) -> Ints:
        """The replicas of each pipeline."""
        if view.now <= 0.0:
            return view.target
        used = view.seen[:, kernel.BUSY_S] / self.decide_s
        wish = np.array([self._wish(*row) for row in zip(used, view.serving, view.target, strict=True)])
        self._wishes.append(wish)
        calm = np.max(self._wishes, axis=0)
        most = np.maximum(view.target * 2, view.target + 4)
        return np.where(wish > view.target, np.minimum(wish, most), np.minimum(view.target, calm))

    def _wish(self, used: float, ready: int, target: int) -> int:
        if ready == 0:
            return max(1, int(target))
        ratio = used / (ready * self.wanted_share)
        counted = ready
        if ratio > 1.0 and target > ready:
            counted, ratio = target, used / (target * self.wanted_share)
            if ratio <= 1.0:
                return int(target)
        if abs(ratio - 1.0) <= self.tolerance:
            return int(target)
        return max(1, math.ceil(round(ratio * counted, 6)))
