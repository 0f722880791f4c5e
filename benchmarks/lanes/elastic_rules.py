"""Policies of others on units that are rented: HPA, KEDA, KPA, Ray Serve, load and headroom, SageServe, constants.

Each has the constants its source publishes, but for one or two knobs, which the lane tunes. They measure what is
inside (held and waiting requests, in slots), as autoscalers on concurrency do.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from benchmarks.lanes.elastic import BUSY, Look, Units
from headgate.allocation.arrays import Floats, Ints


class Constant:
    """The same units all the time."""

    decide_s, wake = 600, False

    def __init__(self, first: Ints) -> None:
        """`first` [P] units."""
        self.first = first

    def decide(self, look: Look) -> Ints:
        """The units of each pipeline."""
        del look
        return self.first


class HPA:
    """Kubernetes' horizontal autoscaler on the part of the slots that is taken; one unit at least.

    Wanted: ceil(units * taken / `share`), unchanged within 10 %; units that do not serve yet count as idle on the way
    up; at most doubled or 4 more in 15 s; down to the highest wish of the last `calm_s`.
    Source: kubernetes.io, "Horizontal Pod Autoscaling" (algorithm details, default behaviour: 300 s).
    """

    decide_s, wake, least = 15, False, 1
    tolerance = 0.1

    def __init__(self, units: Units, pipelines: int, *, share: float = 0.7, calm_s: int = 300) -> None:
        """`share` and `calm_s` are the knobs."""
        self._slots = units.slots
        self._share = share
        self._wishes: deque[Ints] = deque(maxlen=max(1, calm_s // self.decide_s))
        self.first = np.full(pipelines, self.least)

    def decide(self, look: Look) -> Ints:
        """The units of each pipeline."""
        load = look.seen[:, BUSY] / self.decide_s / (self._slots * self._share)
        ready, target = look.serving, look.target
        ratio = load / np.maximum(ready, 1)
        up = (ratio > 1.0) & (target > ready)
        ratio = np.where(up, load / np.maximum(target, 1), ratio)
        counted = np.where(up, target, ready)
        wish = np.ceil(np.round(ratio * counted, 6)).astype(np.int64)
        unchanged = (np.abs(ratio - 1.0) <= self.tolerance) | (up & (ratio <= 1.0)) | ((ready == 0) & (target > 0))
        wish = np.maximum(np.where(unchanged, target, wish), self.least)
        self._wishes.append(wish)
        calm = np.max(self._wishes, axis=0)
        most = np.maximum(target * 2, target + 4)
        return np.where(wish > target, np.minimum(wish, most), np.minimum(target, calm))


class KEDA(HPA):
    """HPA that goes down to none when nothing was inside for the cool-down, and is woken by the next request.

    Source: keda.sh, "Scaling deployments" (cooldownPeriod 300 s; here the same as HPA's calm), HTTP add-on.
    """

    wake, least = True, 0

    def decide(self, look: Look) -> Ints:
        """The units of each pipeline; HPA itself never goes from one to none while something was inside."""
        wanted = super().decide(look)
        return np.where((look.seen[:, BUSY] > 0.0) | (look.waiting > 0), np.maximum(wanted, 1), wanted)


class KPA:
    """Knative's pod autoscaler on concurrency.

    Wanted: ceil(mean inside / (`share` * slots)) over `stable_s`; over a tenth of that instead, and never less than
    before, for `stable_s` after it asked for twice the ready units; at most halved at a time. None when nothing was
    inside for `stable_s` and 30 s of grace. Asked every 2 s.
    Source: knative.dev, "Additional autoscaling configuration for KPA" (60 s, 10 %, 200 %, 70 %).
    """

    decide_s, wake = 2, True
    panic_times, down_times, grace_s = 2.0, 2.0, 30

    def __init__(self, units: Units, pipelines: int, *, share: float = 0.7, stable_s: int = 60) -> None:
        """`share` and `stable_s` are the knobs."""
        self._per_unit = units.slots * share
        self._stable_s = stable_s
        self._stable, self._short = (Recent(pipelines, max(1, s // self.decide_s)) for s in (stable_s, stable_s // 10))
        self._panic_until = np.full(pipelines, -np.inf)
        self._panic_most = np.zeros(pipelines, np.int64)
        self._active = np.full(pipelines, -np.inf)
        self.first = np.zeros(pipelines, np.int64)

    def decide(self, look: Look) -> Ints:
        """The units of each pipeline."""
        inside = look.seen[:, BUSY] / self.decide_s
        self._stable.add(inside)
        self._short.add(inside)
        ready = np.maximum(look.serving, 1)
        least = np.floor(ready / self.down_times)
        mean = self._stable.mean()
        stable = np.maximum(np.ceil(np.round(mean / self._per_unit, 9)), least)
        panic = np.maximum(np.ceil(np.round(self._short.mean() / self._per_unit, 9)), least)
        alarmed = panic / ready >= self.panic_times
        self._panic_most[alarmed & (look.now > self._panic_until)] = 0
        self._panic_until[alarmed] = look.now + self._stable_s
        panicking = look.now <= self._panic_until
        held = np.maximum(self._panic_most, np.maximum(panic, ready).astype(np.int64))
        self._panic_most = np.where(panicking, held, 0)
        self._active[mean > 1e-9] = look.now
        rests = look.now - self._active > self.grace_s
        return np.where(rests, 0, np.maximum(np.where(panicking, self._panic_most, stable), 1)).astype(np.int64)


class RayServe:
    """Ray Serve's rule: so many requests inside by replica.

    Wanted: ceil(mean inside of the last 30 s / (`share` * slots)); done when that was more than the target for 30 s,
    or less for `down_s`. Source: docs.ray.io, AutoscalingConfig (look_back_period_s, upscale_delay_s 30,
    downscale_delay_s 600, min_replicas 0; metrics_interval_s 10).
    """

    decide_s, wake = 10, True
    up_s, look_back_s = 30, 30

    def __init__(self, units: Units, pipelines: int, *, share: float = 0.7, down_s: int = 600) -> None:
        """`share` and `down_s` are the knobs."""
        self._per_unit = units.slots * share
        self._down_s = down_s
        self._inside = Recent(pipelines, self.look_back_s // self.decide_s)
        self._ticks = np.zeros(pipelines, np.int64)
        self.first = np.zeros(pipelines, np.int64)

    def decide(self, look: Look) -> Ints:
        """The units of each pipeline."""
        self._inside.add(look.seen[:, BUSY] / self.decide_s)
        wanted = np.ceil(np.round(self._inside.mean() / self._per_unit, 9)).astype(np.int64)
        way = np.sign(wanted - look.target)
        self._ticks = np.where(way == np.sign(self._ticks), self._ticks, 0) + way
        due = (self._ticks > self.up_s / self.decide_s) | (-self._ticks > self._down_s / self.decide_s)
        self._ticks[due] = 0
        return np.where(due, wanted, look.target)


class LoadAndHeadroom:
    """In proportion to load: what was inside on average in the last `window_s`, and `headroom` of it more."""

    decide_s, wake = 10, True

    def __init__(self, units: Units, pipelines: int, *, headroom: float = 0.3, window_s: int = 60) -> None:
        """`headroom` and `window_s` are the knobs."""
        self._per_unit = units.slots / (1.0 + headroom)
        self._inside = Recent(pipelines, max(1, window_s // self.decide_s))
        self.first = np.zeros(pipelines, np.int64)

    def decide(self, look: Look) -> Ints:
        """The units of each pipeline."""
        self._inside.add(look.seen[:, BUSY] / self.decide_s)
        return np.ceil(np.round(self._inside.mean() / self._per_unit, 9)).astype(np.int64)


class SageServe:
    """SageServe: an hourly forecast, the fewest units that carry it, and a reaction to the load in between.

    Every hour an autoregressive model of differences (ARIMA 3,1,0, least squares, by pipeline, on tens of minutes of
    the last day) tells the highest load of the next hour; its integer program, units times price with each unit's rate
    as the constraint, has with one elastic pool the ceiling as its optimum. In between a unit more (a tenth, if that is
    more) when over `share` of the slots are taken, a unit less when under half of that, not below the plan.
    Source: SageServe (S. Jaiswal et al., 2025), its long-term plan and LT-U; step sizes and the order are ours.
    """

    decide_s, wake = 15, True
    _every_s, _bucket_s, _order, _day = 3600, 600, 3, 144

    def __init__(self, units: Units, pipelines: int, *, share: float = 0.7, calm_s: int = 300) -> None:
        """`share` (of the slots, in the plan and between) and `calm_s` (between two steps down) are the knobs."""
        self._slots, self._share, self._calm_s = units.slots, share, calm_s
        self._inside = np.zeros(pipelines)
        self._past: deque[Floats] = deque(maxlen=self._day)
        self._planned = np.zeros(pipelines, np.int64)
        self._busy_at = np.full(pipelines, -np.inf)
        self.first = np.zeros(pipelines, np.int64)

    def decide(self, look: Look) -> Ints:
        """The units of each pipeline."""
        self._inside += look.seen[:, BUSY]
        if look.now and look.now % self._bucket_s == 0:
            self._past.append(self._inside / self._bucket_s)
            self._inside = np.zeros_like(self._inside)
        if look.now and look.now % self._every_s == 0:
            self._planned = np.ceil(np.round(self._highest() / (self._slots * self._share), 6)).astype(np.int64)
            return self._planned
        used = look.seen[:, BUSY] / self.decide_s / self._slots
        have = look.serving + look.starting
        more = used > self._share * np.maximum(have, 1)
        enough = used >= 0.5 * self._share * np.maximum(have - 1, 0)
        self._busy_at[more | (enough & (used > 0.0))] = look.now
        less = (look.now - self._busy_at >= self._calm_s) & (have > self._planned)
        step = np.where(more, np.maximum(1, have // 10), np.where(less, -1, 0))
        self._busy_at[less & (have > 1)] = look.now
        return np.maximum(np.maximum(look.target, have) + step, self._planned)

    def _highest(self) -> Floats:
        """The highest load that is foretold for the next hour, in slots [P]."""
        past = np.array(self._past).T
        steps = np.diff(past, axis=1)
        if steps.shape[1] < 3 * self._order:
            return past[:, -6:].max(axis=1)
        seen = np.stack([steps[:, lag : steps.shape[1] - self._order + lag] for lag in range(self._order)], axis=2)
        then = steps[:, self._order :, None]
        square = seen.transpose(0, 2, 1) @ seen + 1e-3 * np.eye(self._order)
        weights = np.linalg.solve(square, seen.transpose(0, 2, 1) @ then)[:, :, 0]
        weights /= np.maximum(1.0, np.abs(weights).sum(axis=1, keepdims=True))  # stationary, or it runs away
        recent, level, highest = steps[:, -self._order :].copy(), past[:, -1].copy(), np.zeros(len(past))
        for _ in range(self._every_s // self._bucket_s):
            following = (recent * weights).sum(axis=1)
            recent = np.column_stack([recent[:, 1:], following])
            level = np.maximum(0.0, level + following)
            highest = np.maximum(highest, level)
        return highest


class Recent:
    """The mean of the last few values [P], kept as a running sum."""

    def __init__(self, pipelines: int, most: int) -> None:
        """`most` values are remembered."""
        self._ring = np.zeros((most, pipelines))
        self._sum = np.zeros(pipelines)
        self._count = 0

    def add(self, values: Floats) -> None:
        """The next values."""
        place = self._count % len(self._ring)
        self._sum += values - self._ring[place]
        self._ring[place] = values
        self._count += 1

    def mean(self) -> Floats:
        """Their mean; of fewer at the beginning."""
        return np.maximum(0.0, self._sum / max(1, min(self._count, len(self._ring))))
