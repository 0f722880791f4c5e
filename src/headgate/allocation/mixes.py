"""Every mix of replicas that a pipeline may have, all pipelines' mixes one after the other in flat arrays.

A mix is a whole number of replicas for each option of one pipeline. Mixes that can be no better than a smaller
one are left out: they cost capacity for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headgate.allocation.arrays import Floats, Ints
from headgate.allocation.problem import Curves, Problem

SLACK = 1e-9


@dataclass(frozen=True, slots=True)
class Mixes:
    """C mixes of I pipelines. Each pipeline has one mix at least.

    `owner` [C] is the pipeline (0..I-1, rising), `first` [I] each pipeline's first mix, `counts` [S, C] the
    replicas by option slot, `use` [P, C] units of each pool, `worth` [C] value less costs.
    """

    owner: Ints
    first: Ints
    counts: Ints
    use: Floats
    worth: Floats

    def pick(self, keep: Ints) -> Mixes:
        """The mixes at `keep` (rising indices, one for each pipeline at least)."""
        owner = self.owner[keep]
        first = np.searchsorted(owner, np.arange(len(self.first)))
        return Mixes(owner, first, self.counts.take(keep, axis=1), self.use.take(keep, axis=1), self.worth[keep])

    def best(self, score: Floats) -> Ints:
        """The index [I] of each pipeline's first mix with the highest `score` [C]."""
        return self.firsts(score >= np.maximum.reduceat(score, self.first)[self.owner])

    def firsts(self, good: np.typing.NDArray[np.bool_]) -> Ints:
        """The index [I] of each pipeline's first mix that is `good` [C]; every pipeline has one."""
        there = np.flatnonzero(good)
        return there[np.searchsorted(self.owner[there], np.arange(len(self.first)))]


def list_mixes(problem: Problem, curves: Curves, members: Ints, slots: Ints, least: Ints, room: Floats) -> Mixes:
    """All sensible mixes of the pipelines `members` [I], whose options are `slots` [I, S] (-1, at the left: none).

    `least` [I] replicas must be in each mix, and each must fit `room` [P] alone.
    """
    owner: Ints = np.arange(len(members))
    total: Ints = np.zeros(len(members), np.int64)
    work: Floats = np.zeros(len(members))
    costs: Floats = np.zeros(len(members))
    steps: list[tuple[Ints, Ints]] = []
    limits = _option_limits(problem, curves.enough[members], slots, least, room)
    table = _cost_table(problem, int(limits.max()))
    # Why one entry more: an option that is not there (-1) has none now, adds nothing and costs nothing.
    now, speed = np.append(problem.now, 0), np.append(problem.speed, 1.0)
    enough, cap = curves.enough[members], problem.cap[members]
    for slot in range(slots.shape[1]):
        k = slots[:, slot][owner]
        needed = np.ceil((enough[owner] - work) / speed[k] - SLACK).astype(np.int64)
        # Why `now` counts: replicas that are there may be cheaper to keep than to stop, needed or not.
        most = np.maximum(np.maximum(needed, now[k]), least[owner] - total)
        most = np.maximum(np.minimum(np.minimum(most, limits[:, slot][owner]), cap[owner] - total), 0)
        ends = np.cumsum(most + 1)
        back = np.repeat(np.arange(len(owner)), most + 1)
        added: Ints = np.arange(int(most.sum()) + len(most)) - (ends - most - 1)[back]
        costs = costs[back] + table.ravel()[(np.where(k < 0, problem.options, k) * table.shape[1])[back] + added]
        work = work[back] + speed[k][back] * added
        total = total[back] + added
        owner = owner[back]
        steps.append((back, added))
    return _sensible(problem, curves, members, slots, least, room, owner, steps, work, total, costs)


def _cost_table(problem: Problem, most: int) -> Floats:
    """What 0..most replicas of each option cost [K + 1, most + 1]: straight on both sides of `now`; last row zero."""
    table = np.zeros((problem.options + 1, most + 1))
    change = np.arange(most + 1) - problem.now[:, None]
    table[:-1] = problem.cost[:, None] * np.arange(most + 1)
    table[:-1] += np.where(change > 0, problem.start_cost[:, None], -problem.stop_cost[:, None]) * change
    return table


def _option_limits(problem: Problem, enough: Floats, slots: Ints, least: Ints, room: Floats) -> Ints:
    """Replicas [I, S] of each option that may be of use, were it alone: capacity that is `enough` [I], and `room`."""
    seats = np.floor(room[problem.pool[slots]] / problem.units[slots] + SLACK).astype(np.int64)
    needed = np.ceil(enough[:, None] / problem.speed[slots] - SLACK).astype(np.int64)
    useful = np.maximum(np.maximum(needed, problem.now[slots]), least[:, None])
    return np.where(slots >= 0, np.minimum(seats, useful).clip(0), 0)


def _sensible(
    problem: Problem, curves: Curves, members: Ints, slots: Ints, least: Ints, room: Floats,
    owner: Ints, steps: list[tuple[Ints, Ints]], work: Floats, total: Ints, costs: Floats,
) -> Mixes:  # fmt: skip
    """Those mixes that fit, have enough replicas and are worth more than with one replica of the last slot less."""
    worth = curves.at(members[owner], work) - costs
    good = total >= least[owner]
    good[1:] &= (steps[-1][1][1:] == 0) | ~good[:-1] | (worth[1:] > worth[:-1])
    kept = np.flatnonzero(good)
    held, owner, worth = _trace(steps, kept), owner[kept], worth[kept]
    use = np.zeros((problem.pools, len(kept)))
    flat, everyone = use.ravel(), np.arange(len(kept))
    for slot in range(len(held)):
        k = slots[:, slot]
        flat[(problem.pool[k] * len(kept))[owner] + everyone] += problem.units[k][owner] * held[slot]
    fits = (use <= room[:, None] + SLACK).all(axis=0)
    if not fits.all():
        kept = np.flatnonzero(fits)
        owner, worth = owner[kept], worth[kept]
        held, use = held.take(kept, axis=1), use.take(kept, axis=1)
    return Mixes(owner, np.searchsorted(owner, np.arange(len(members))), held, use, worth)


def _trace(steps: list[tuple[Ints, Ints]], kept: Ints) -> Ints:
    """The counts [S, C] of the mixes at `kept`, from each slot's (place one slot before, replicas added)."""
    held = np.empty((len(steps), len(kept)), np.int64)
    for slot in range(len(steps) - 1, -1, -1):
        back, added = steps[slot]
        held[slot] = added[kept]
        kept = back[kept]
    return held
