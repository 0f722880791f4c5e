"""Splits of capacity to compare with: equal, in proportion to load, and the best one that never changes.

The last one knows the whole trace beforehand: it is the best that anybody could have written into a file.
"""

from __future__ import annotations

import numpy as np

from headgate.allocation.arrays import Floats, Ints
from headgate.allocation.keep_alive import LATE_PART, MINUTE_S
from headgate.allocation.simulator import kernel
from headgate.allocation.simulator.run import View
from headgate.allocation.simulator.world import Discipline, Requests, World
from headgate.evaluation.what_if import Case, Served

DRAIN_S = 60.0
"""Seconds after the trace's end in which what is under way may still be answered."""

_FINE = 64  # up to so many replicas of a pipeline each number is tried; beyond, steps of an eighth
_REMEMBERED_S = 60.0


def discipline(one: Served) -> Discipline:
    """How the simulator serves a pipeline. Whether it was late is found from its slack, not by the simulator."""
    return Discipline(slots=one.slots, depth=one.slots, slow=one.slow, queue=one.queue, late_s=np.inf)


def late(one: Served, latency: Floats) -> np.ndarray:
    """Which requests were late [request]: dropped and unanswered ones are."""
    return ~(latency - one.work <= one.slack + 1e-9)


def count_minutes(one: Served, missed: np.ndarray) -> tuple[int, int]:
    """Minutes within the SLO, and all those with requests; `missed` [request] says which were late."""
    minute = (one.at / MINUTE_S).astype(np.int64)
    came = np.bincount(minute)
    lost = np.bincount(minute, missed.astype(np.float64))
    return int(np.count_nonzero((came > 0) & (lost <= LATE_PART * came))), int(np.count_nonzero(came))


class Fixed:
    """The same replicas all the time."""

    decide_s = 3600.0

    def __init__(self, counts: Ints) -> None:
        """`counts` by pipeline."""
        self.first = counts

    def decide(self, view: View) -> Ints:
        """The replicas of each pipeline."""
        del view
        return self.first


class Proportional:
    """Replicas in proportion to the work that came lately, floors first. It is told the mean work of a request."""

    decide_s = 10.0

    def __init__(self, case: Case) -> None:
        """Begins with equal shares."""
        self._case = case
        self._work = np.array([one.load / max(len(one.at), 1) for one in case.served])
        self._seen = np.zeros(len(case.served))
        self._before = 0.0
        self.first = share_equally(case)

    def decide(self, view: View) -> Ints:
        """The replicas of each pipeline."""
        elapsed = view.now - self._before
        if elapsed <= 0.0:
            return self.first
        self._before = view.now
        self._seen = self._seen * np.exp(-elapsed / _REMEMBERED_S) + view.seen[:, kernel.ARRIVED]
        load = self._seen * self._work
        return share(self._case, load if load.any() else np.ones(len(load)))


def share_equally(case: Case) -> Ints:
    """The same capacity for each pipeline."""
    return share(case, np.ones(len(case.served)))


def share(case: Case, load: Floats) -> Ints:
    """Replicas in proportion to `load` [pipeline] within floors and caps; whoever is furthest behind gets the next."""
    units = np.array([one.units for one in case.served])
    counts = np.array([one.floor for one in case.served], np.int64)
    cap = np.array([one.cap for one in case.served])
    ideal = load / load.sum() * case.budget / units
    fitting = np.minimum(np.floor(ideal + 1e-9).astype(np.int64), cap)
    if (np.maximum(fitting, counts) * units).sum() <= case.budget:
        counts = np.maximum(fitting, counts)
    return _fill(case, counts, ideal)


def _fill(case: Case, counts: Ints, ideal: Floats) -> Ints:
    """`counts` with what is left of the budget: whoever is furthest behind `ideal` (replicas) gets the next one."""
    units = np.array([one.units for one in case.served])
    cap = np.array([one.cap for one in case.served])
    free = case.budget - int((counts * units).sum())
    while True:
        able = (units <= free) & (counts < cap) & (ideal > 0.0)
        if not able.any():
            return counts
        chosen = int(np.argmax(np.where(able, ideal / (counts + 1.0), -1.0)))
        counts[chosen] += 1
        free -= int(units[chosen])


def best_fixed(case: Case) -> Ints:
    """The replicas of each pipeline with the least weighted sum of parts late, were they never changed.

    Pipelines that have replicas of their own share nothing, so each is played alone with each number of them; which
    numbers fit together best is then found exactly (a knapsack, unit by unit).
    """
    least = np.zeros(case.budget + 1)
    taken: list[Ints] = []
    for one in case.served:
        cost = one.weight * late_by_replicas(one, case.span_s)
        best = np.full(case.budget + 1, np.inf)
        number = np.zeros(case.budget + 1, np.int64)
        for count in range(one.floor, one.cap + 1):
            used = count * one.units
            if used > case.budget:
                break
            with_it = least[: case.budget + 1 - used] + cost[count]
            better = with_it < best[used:] - 1e-12
            best[used:] = np.where(better, with_it, best[used:])
            number[used:] = np.where(better, count, number[used:])
        least = best
        taken.append(number)
    counts: list[int] = []
    left = case.budget
    for one, number in zip(reversed(case.served), reversed(taken), strict=True):
        counts.append(int(number[left]))
        left -= counts[-1] * one.units
    # What is of no use to be on time still shortens waits.
    return _fill(case, np.array(counts[::-1], np.int64), np.array([one.load / one.units for one in case.served]))


def fewest_fixed(case: Case, promised: float) -> Ints:
    """The fewest replicas of each pipeline that, were they never changed, keep the `promised` part of its minutes.

    As many minutes as with its cap where that is less; the best split where all of them do not fit at once.
    """
    counts: list[int] = []
    for one in case.served:

        def kept(count: int, one: Served = one) -> float:
            within, busy = count_minutes(one, play_alone(one, count, case.span_s))
            return within / max(busy, 1)

        wanted = min(promised, kept(one.cap))
        low, high = max(one.floor, 1), max(one.cap, 1)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if kept(middle) >= wanted else (middle + 1, high)
        counts.append(low)
    fitting = sum(one.units * count for one, count in zip(case.served, counts, strict=True)) <= case.budget
    return np.array(counts, np.int64) if fitting else best_fixed(case)


def late_by_replicas(one: Served, span_s: float) -> Floats:
    """The part of a pipeline's requests that is late with 0, 1, ... cap replicas that are there all the time."""
    parts = np.ones(one.cap + 1)
    tried = _numbers(one.cap)
    for count in tried:
        parts[count] = float(np.mean(play_alone(one, count, span_s)))
        if parts[count] <= float(np.mean(one.slack < 0.0)) + 1e-12:
            parts[count:] = parts[count]
            tried = [number for number in tried if number <= count] + [one.cap]
            break
    known = [0, *tried]
    return np.interp(np.arange(one.cap + 1), known, parts[known])


def play_alone(one: Served, replicas: int, span_s: float) -> np.ndarray:
    """Which requests are late [request] with so many replicas that are there all the time."""
    world = World([discipline(one)], [Requests(at=one.at, work=one.work)], replicas, turns=False)
    for _ in range(replicas):
        world.start(0, 0.0)
    world.advance(span_s + DRAIN_S)
    return late(one, world.latency)


def _numbers(cap: int) -> list[int]:
    numbers: list[int] = []
    count = 1
    while count < cap:
        numbers.append(count)
        count += max(1, count // 8) if count >= _FINE else 1
    return [*numbers, cap]
