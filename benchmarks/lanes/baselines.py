"""Policies of others, in the form the simulator asks: equal share, load-proportional, HPA, KPA, Ray Serve, Wallaroo.

Each has the constants its source publishes. Wishes above the budget wait for a place, as pending pods do.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from benchmarks.lanes.lane_f import Lane
from benchmarks.lanes.traces import WORK_LEAST_S, WORK_SCALE_S, WORK_SHAPE
from headgate.allocation.arrays import Floats, Ints
from headgate.allocation.simulator import kernel
from headgate.allocation.simulator.run import View

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


class LoadProportional:
    """The whole budget, divided in proportion to the requests of the last minute, one replica each at least.

    Largest remainders first. Source: the usual reading of weighted sharing; no constants but the minute.
    """

    def __init__(self, lane: Lane) -> None:
        """`lane.capacity` is divided."""
        self._capacity = lane.capacity
        self._last: deque[Floats] = deque(maxlen=6)

    def decide(self, view: View) -> Ints:
        """The replicas of each pipeline."""
        if view.now <= 0.0:
            return view.target
        self._last.append(view.seen[:, kernel.ARRIVED])
        load = np.sum(self._last, axis=0) + 1e-9
        spare = self._capacity - len(load)
        part = load / load.sum() * spare
        out = 1 + np.floor(part).astype(np.int64)
        out[np.argsort(-(part % 1.0), kind="stable")[: self._capacity - out.sum()]] += 1
        return out


class KPA:
    """Knative's pod autoscaler on concurrency, at its defaults.

    Wanted: ceil(mean requests inside or waiting / 0.7), over 60 s; over 6 s instead (and never less than before) for
    60 s after that asked for twice the ready replicas; at most halved at a time. Asked every 2 s. Concurrency of a
    replica: 1, for it works on one request at a time.
    Source: knative.dev, "Additional autoscaling configuration for KPA".
    """

    decide_s = 2.0
    target = 0.7
    stable_s, panic_s = 60.0, 6.0
    panic_times, down_times = 2.0, 2.0

    def __init__(self, lane: Lane) -> None:
        """`lane` gives the number of pipelines."""
        self._inside: deque[Ints] = deque(maxlen=int(self.stable_s / self.decide_s))
        self._panic_until = np.full(lane.jobs, -np.inf)
        self._panic_most = np.zeros(lane.jobs, np.int64)

    def decide(self, view: View) -> Ints:
        """The replicas of each pipeline."""
        if view.now <= 0.0:
            return view.target
        self._inside.append(view.in_flight + view.queued)
        recent = list(self._inside)[-int(self.panic_s / self.decide_s) :]
        ready = np.maximum(view.serving, 1)
        least = np.floor(ready / self.down_times)
        stable = np.maximum(np.ceil(np.mean(self._inside, axis=0) / self.target), least)
        panic = np.maximum(np.ceil(np.mean(recent, axis=0) / self.target), least)
        alarmed = panic / ready >= self.panic_times
        fresh = alarmed & (view.now > self._panic_until)
        self._panic_most[fresh] = 0
        self._panic_until[alarmed] = view.now + self.stable_s
        panicking = view.now <= self._panic_until
        self._panic_most = np.where(panicking, np.maximum(self._panic_most, np.maximum(panic, ready)), 0).astype(
            np.int64
        )
        return np.maximum(np.where(panicking, self._panic_most, stable), 1).astype(np.int64)


class RayServe:
    """Ray Serve's default rule: two requests inside or waiting by replica.

    Wanted: ceil(mean of the last 30 s / 2); done when that was more than the target for 30 s, or less for 600 s.
    Source: docs.ray.io, AutoscalingConfig (target_ongoing_requests, upscale_delay_s, downscale_delay_s,
    look_back_period_s; metrics_interval_s 10).
    """

    ongoing = 2.0
    up_s, down_s, look_back_s = 30.0, 600.0, 30.0
    decide_s = 10.0

    def __init__(self, lane: Lane) -> None:
        """`lane` gives the number of pipelines."""
        self._inside: deque[Ints] = deque(maxlen=int(self.look_back_s / self.decide_s))
        self._ticks = np.zeros(lane.jobs, np.int64)

    def decide(self, view: View) -> Ints:
        """The replicas of each pipeline."""
        if view.now <= 0.0:
            return view.target
        self._inside.append(view.in_flight + view.queued)
        wanted = np.maximum(1, np.ceil(np.mean(self._inside, axis=0) / self.ongoing)).astype(np.int64)
        way = np.sign(wanted - view.target)
        self._ticks = np.where(way == np.sign(self._ticks), self._ticks, 0) + way
        due = (self._ticks > self.up_s / self.decide_s) | (-self._ticks > self.down_s / self.decide_s)
        self._ticks[due] = 0
        return np.where(due, wanted, view.target)


class Wallaroo:
    """Wallaroo's rule: (queued + in flight) / replicas, over a window of 300 s: one more above 5, one less below 1.

    Source: docs.wallaroo.ai, deployment configuration (scale_up_queue_depth 5 in its examples, scale_down_queue_depth
    1, autoscaling_window 300 s), from memory; how fast it steps is not known: here one replica, then a new window.
    """

    up, down, window_s = 5.0, 1.0, 300.0
    decide_s = 10.0

    def __init__(self, lane: Lane) -> None:
        """`lane` gives the number of pipelines."""
        self._depths: list[list[float]] = [[] for _ in range(lane.jobs)]

    def decide(self, view: View) -> Ints:
        """The replicas of each pipeline."""
        target = view.target.copy()
        if view.now <= 0.0:
            return target
        for job, depth in enumerate((view.in_flight + view.queued) / np.maximum(view.serving, 1)):
            window = self._depths[job]
            window.append(float(depth))
            if len(window) * self.decide_s < self.window_s:
                continue
            mean = float(np.mean(window))
            if mean > self.up or (mean < self.down and target[job] > 1):
                target[job] += 1 if mean > self.up else -1
                window.clear()
            else:
                del window[0]
        return target
