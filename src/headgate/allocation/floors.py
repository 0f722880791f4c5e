"""Where every pipeline's floor finds a seat, before anything else is decided."""

from __future__ import annotations

import numpy as np

from headgate.allocation.arrays import Floats, Ints
from headgate.allocation.mixes import SLACK
from headgate.allocation.problem import Curves, Problem


def seat_floors(problem: Problem, curves: Curves, order: Ints, slots: Ints) -> Ints:
    """Replicas [K] that give every pipeline its floor, or as much of all floors as fits.

    If not all fit, lower ranks go first, and within a rank those whose floor replicas are worth most each.
    `order` [I] breaks ties, `slots` [I, S] are each pipeline's options (-1: none).
    """
    floor = np.minimum(problem.floor, problem.cap)
    floor = np.where((slots >= 0).any(axis=1), floor, 0)
    # Most pipelines can keep what they have; that needs no search.
    likely = slots[np.arange(len(slots)), np.where(slots >= 0, problem.now[slots], -1).argmax(axis=1)]
    seats = np.zeros_like(problem.now)
    asks = floor > 0
    seats[likely[asks]] = floor[asks]
    if (np.bincount(problem.pool, problem.units * seats, problem.pools) <= problem.capacity + SLACK).all():
        return seats
    width = (slots >= 0).sum(axis=1)
    asking = order[asks[order]]
    seats = _seat(problem, slots, floor, asking[np.argsort(width[asking], kind="stable")])
    if seats.sum() == floor.sum():
        return seats
    best = np.where(slots >= 0, problem.speed[slots], 0.0).max(axis=1)
    each = curves.at(np.arange(len(slots)), best * floor) / np.maximum(floor, 1)
    return _seat(problem, slots, floor, asking[np.lexsort((-each[asking], problem.rank[asking]))])


def _seat(problem: Problem, slots: Ints, floor: Ints, order: Ints) -> Ints:
    """Seat floors one after the other in that order; whoever sits may be moved to another pool, never sent away."""
    seats = np.zeros_like(problem.now)
    free = problem.capacity.copy()
    for i in order:
        mine = slots[i][slots[i] >= 0]
        for _ in range(int(floor[i])):
            left = (free[problem.pool[mine]] - problem.units[mine]) / np.maximum(
                problem.capacity[problem.pool[mine]], SLACK
            )
            k = int(mine[np.argmax(left)])
            if left.max() < -SLACK:
                there = next((int(one) for one in mine if _make_room(problem, slots, seats, free, int(one))), None)
                if there is None:
                    break
                k = there
            seats[k] += 1
            free[problem.pool[k]] -= problem.units[k]
    return seats


def _make_room(problem: Problem, slots: Ints, seats: Ints, free: Floats, option: int) -> bool:
    """Move one seated replica out of the option's pool if that gives a replica of it room; whether it did."""
    pool = problem.pool[option]
    for other in np.flatnonzero((seats > 0) & (problem.pool == pool)):
        if free[pool] + problem.units[other] < problem.units[option] - SLACK:
            continue
        for goal in slots[problem.pipeline[other]]:
            target = problem.pool[goal]
            if goal >= 0 and target != pool and free[target] >= problem.units[goal] - SLACK:
                seats[other] -= 1
                seats[goal] += 1
                free[pool] += problem.units[other]
                free[target] -= problem.units[goal]
                return True
    return False
