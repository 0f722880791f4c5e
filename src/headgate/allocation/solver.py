"""Who gets how many replicas, given value curves and prices, and how far that may be from the best possible.

Floors first, then class by class the allocation with the highest value less costs that fits the pools: prices
from the relaxed problem (`bound`), whole replicas from the prices (`exchange`). The answer carries its
certificate: an upper bound that the prices prove. Knows nothing of nodes, devices, memory or time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from headgate.allocation.arrays import Floats, Ints
from headgate.allocation.bound import find_bound
from headgate.allocation.direct import choose_directly
from headgate.allocation.exchange import Effort, choose_mixes
from headgate.allocation.floors import seat_floors
from headgate.allocation.mixes import SLACK, Menu, Mixes
from headgate.allocation.problem import Curves, Problem, Solution, work_of, worth_of

__all__ = ["Answer", "Effort", "Problem", "Solution", "solve", "solve_classes", "worth_of"]


@dataclass(frozen=True, slots=True)
class Answer:
    """The replicas [S, I] by option slot of each pipeline of a class, the `prices` [P], and what none exceeds."""

    counts: Ints
    prices: Floats
    bound: float

    @classmethod
    def of(cls, mixes: Mixes, prices: Floats, mix: Ints, bound: float) -> Answer:
        """The `mix` [I] of each pipeline out of `mixes`."""
        return cls(mixes.counts.take(mix, axis=1), prices, bound)


Method = Callable[[Menu, Floats, Floats | None], Answer]
"""Answers for a menu, the room [P] there is, and the prices [P] of a like problem."""


def solve(problem: Problem, *, prices: Floats | None = None, effort: Effort | None = None) -> Solution:
    """The allocation with nearly the highest value, and the bound that proves how near.

    `prices` [R, P] of an earlier solution of a like problem make it faster. The same problem gives the
    same answer; the order of pipelines and options does not change its value.
    """

    effort = effort or Effort()

    def method(menu: Menu, room: Floats, warm: Floats | None) -> Answer:
        best = choose_directly(menu, room, effort.cells)
        if best is not None:
            return Answer(best.counts, best.prices, best.value)
        mixes, proof = find_bound(menu, room, warm)
        chosen = choose_mixes(mixes, proof, room, menu.seats, effort)
        return Answer.of(mixes, proof.prices, chosen.mix, chosen.bound)

    return solve_classes(problem, prices, method)


def solve_classes(problem: Problem, prices: Floats | None, method: Method) -> Solution:
    """Floors first, then class by class what `method` answers, then what is left idle."""
    curves = Curves(problem.loads, problem.values)
    if not problem.options:
        return _nothing(problem, curves)
    order, slots = _canonical(problem)
    seats = seat_floors(problem, curves, order, slots)
    seated = np.bincount(problem.pipeline, seats, problem.pipelines).astype(np.int64)
    ranks = np.unique(problem.rank)
    found = np.zeros((len(ranks), problem.pools))
    counts, bound = seats.copy(), 0.0
    for number, rank in enumerate(ranks):
        members = order[problem.rank[order] == rank]
        others = problem.units * np.where(problem.rank[problem.pipeline] == rank, 0, counts)
        room = problem.capacity - np.bincount(problem.pool, others, problem.pools)
        menu = Menu(problem, curves, members, slots, seats, np.maximum(room, 0.0))
        answer = method(menu, room, prices[number] if prices is not None and prices.shape == found.shape else None)
        there = menu.option >= 0
        counts[menu.option[there]] = answer.counts[there]
        found[number] = answer.prices
        bound += answer.bound
    counts = _spend_idle(problem, curves, counts)
    value = worth_of(problem, counts, curves)
    return Solution(
        counts=counts,
        prices=found,
        value=value,
        bound=max(bound, value),
        unseated=np.minimum(problem.floor, problem.cap) - seated,
    )


def _nothing(problem: Problem, curves: Curves) -> Solution:
    """The solution where there is no option at all: what no capacity is worth."""
    value = worth_of(problem, problem.now, curves)
    wanted = np.minimum(problem.floor, problem.cap)
    prices = np.zeros((len(np.unique(problem.rank)), problem.pools))
    return Solution(counts=problem.now, prices=prices, value=value, bound=value, unseated=wanted)


def _canonical(problem: Problem) -> tuple[Ints, Ints]:
    """Pipelines [I] in an order that follows from what they are, and their options [I, S], at the right (-1: none).

    Why: ties are broken by place, so places must not depend on the order in which the caller lists things.
    """
    sign = np.sqrt(np.arange(2.0, 2.0 + 8))
    columns = (
        problem.pool, problem.units, problem.speed, problem.cost, problem.now, problem.start_cost, problem.stop_cost,
    )  # fmt: skip
    mark = sum((weight * column for weight, column in zip(sign, columns, strict=False)), np.zeros(()))
    by_owner = np.argsort(problem.pipeline, kind="stable")
    owner, width = problem.pipeline[by_owner], np.bincount(problem.pipeline, minlength=problem.pipelines)
    slots = np.full((problem.pipelines, int(width.max(initial=1))), -1)
    slots[owner, np.arange(problem.options) - (np.cumsum(width) - width)[owner]] = by_owner
    # Why the slowest last: the last slot is the one whose useless replicas are never listed.
    marks = np.where(slots >= 0, mark[slots], 0.0)
    by_mark = np.lexsort((marks, np.where(slots >= 0, -problem.speed[slots], -np.inf)), axis=1)
    slots, marks = np.take_along_axis(slots, by_mark, axis=1), np.take_along_axis(marks, by_mark, axis=1)
    weights = np.sqrt(np.arange(3.0, 3.0 + problem.loads.shape[1]))
    own = (problem.values * weights + problem.loads / weights).sum(axis=1)
    key = own + sign[0] * problem.floor + sign[1] * problem.cap + sign[3] * problem.rank + marks.sum(axis=1)
    return np.argsort(key, kind="stable"), slots


def _spend_idle(problem: Problem, curves: Curves, counts: Ints) -> Ints:
    """`counts` with further replicas where there is room and they cost nothing, those that run already first.

    Why after all classes: what helps nobody must not be taken from those who come later.
    """
    counts = counts.copy()
    free = problem.capacity - np.bincount(problem.pool, problem.units * counts, problem.pools)
    total = np.bincount(problem.pipeline, counts, problem.pipelines)
    while True:
        more = (problem.units <= free[problem.pool] + SLACK) & (total < problem.cap)[problem.pipeline]
        if not more.any():
            return counts
        k = np.flatnonzero(more)
        owner = problem.pipeline[k]
        work = work_of(problem, counts)[owner]
        gain = curves.at(owner, work + problem.speed[k]) - curves.at(owner, work) - problem.cost[k]
        runs = counts[k] < problem.now[k]
        gain = gain + np.where(runs, problem.stop_cost[k], -problem.start_cost[k])
        good = np.flatnonzero(gain >= -1e-12)
        if not len(good):
            return counts
        for place in good[np.lexsort((problem.rank[owner[good]], ~runs[good], -gain[good]))]:
            option, i = int(k[place]), int(owner[place])
            if total[i] < problem.cap[i] and problem.units[option] <= free[problem.pool[option]] + SLACK:
                counts[option] += 1
                total[i] += 1
                free[problem.pool[option]] -= problem.units[option]
