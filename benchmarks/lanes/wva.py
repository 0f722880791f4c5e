"""llm-d's workload variant autoscaler: its saturation analyser, and the fair sharing of a limited number of devices.

Source: github.com/llm-d/llm-d-workload-variant-autoscaler (internal/engines/analyzers/saturation_v2,
internal/engines/pipeline/greedy_score_optimizer.go, first named GreedyBySaturation; thresholds of
internal/config/saturation_scaling.go). It counts tokens in a KV cache; here a request inside stands for its tokens and
the four a replica may hold for the cache.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from benchmarks.lanes.lane_f import SERVICE, Lane
from headgate.allocation.arrays import Floats, Ints
from headgate.allocation.simulator.run import View

CACHE_SHARE = 0.80
UP_SHARE, DOWN_SHARE = 0.85, 0.70
PER_REPLICA = SERVICE.depth * CACHE_SHARE
PEAK_S = 60.0  # metrics are the highest of the last minute
PLAN_S = 60.0  # GLOBAL_OPT_INTERVAL
CALM_S = 240.0


class WVA:
    """Demand is what is inside or waiting (highest of the last minute).

    More is needed when demand / 0.85 is above what serves and starts; spare is what demand / 0.70 leaves of what
    serves. Free devices go to the job with most demand left (all priorities 1), down to the mean of the others, and
    again. Down to the highest wish of the last 240 s, as its chart sets the autoscaler that carries it out; up at once
    (the chart waits 240 s there too, which only does worse here).
    """

    decide_s = 10.0

    def __init__(self, lane: Lane) -> None:
        """`lane.capacity` limits the devices."""
        self._capacity = lane.capacity
        self._inside: deque[Ints] = deque(maxlen=int(PEAK_S / self.decide_s))
        self._wishes: deque[Ints] = deque(maxlen=int(CALM_S / PLAN_S))

    def decide(self, view: View) -> Ints:
        """The replicas of each pipeline."""
        if view.now <= 0.0:
            return view.target
        self._inside.append(view.in_flight + view.queued)
        if view.now % PLAN_S:
            return view.target
        demand = np.max(self._inside, axis=0).astype(float)
        needed = np.maximum(demand / UP_SHARE - view.target * PER_REPLICA, 0.0)
        spare = np.maximum(view.serving * PER_REPLICA - demand / DOWN_SHARE, 0.0)
        fewer = np.floor(spare / PER_REPLICA).astype(np.int64)
        more = share_devices(needed, self._capacity - int(view.target.sum()))
        self._wishes.append(np.where(needed > 0.0, view.target + more, np.maximum(1, view.target - fewer)))
        return np.where(more > 0, view.target + more, np.minimum(view.target, np.max(self._wishes, axis=0)))


def share_devices(needed: Floats, free: int) -> Ints:
    """Replicas for each job, at most `free` in all, by what it needs (in requests held)."""
    left, given = needed.copy(), np.zeros(len(needed), np.int64)
    while free > 0 and np.any(active := left > 0.0):
        mean = float(left[active].mean())
        job = int(np.argmax(left))
        floor = 0.0 if active.sum() == 1 else mean
        if active.sum() > 1 and left[job] <= mean:
            floor = mean - left[job] / active.sum()
        replicas = min(math.ceil((left[job] - floor) / PER_REPLICA), free)
        given[job] += replicas
        free -= replicas
        left[job] -= replicas * PER_REPLICA
        if left[job] > mean:
            left[job] = 0.0
    return given
