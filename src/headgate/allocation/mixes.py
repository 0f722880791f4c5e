"""Every mix of replicas that a pipeline may have, all pipelines' mixes one after the other in flat arrays.

A mix is a whole number of replicas for each option of one pipeline. Mixes that can be no better than a smaller
one are left out: they cost capacity for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headgate.allocation.problem import Curves, Floats, Ints, Problem

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
        return Mixes(owner, first, self.counts[:, keep], self.use[:, keep], self.worth[keep])

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
    number = np.arange(len(members))
    owner, work, total, costs = number, np.zeros(len(members)), np.zeros(len(members), np.int64), np.zeros(len(members))
    counts: list[Ints] = []
    limits = _option_limits(problem, slots, room)
    enough, cap = curves.enough[members], problem.cap[members]
    for slot in range(slots.shape[1]):
        k = slots[:, slot][owner]
        needed = np.ceil((enough[owner] - work) / problem.speed[k] - SLACK).astype(np.int64)
        # Why `now` counts: replicas that are there may be cheaper to keep than to stop, needed or not.
        most = np.maximum(np.maximum(needed, problem.now[k]), least[owner] - total)
        most = np.maximum(np.minimum(np.minimum(most, limits[:, slot][owner]), cap[owner] - total), 0)
        length = most + 1
        ends = np.cumsum(length)
        back = np.repeat(np.arange(len(owner)), length)
        added = np.arange(ends[-1]) - (ends - length)[back]
        k = k[back]
        change = added - problem.now[k]
        rise = np.where(change > 0, problem.start_cost[k], -problem.stop_cost[k]) * change
        # Why where: an option that is not there has none now and can get none, so it costs nothing.
        costs = costs[back] + np.where(slots[:, slot][owner[back]] >= 0, problem.cost[k] * added + rise, 0.0)
        work = work[back] + problem.speed[k] * added
        total = total[back] + added
        owner = owner[back]
        counts = [*(held[back] for held in counts), added]
    return _sensible(problem, curves, members, slots, least, room, owner, np.stack(counts), work, total, costs)


def _option_limits(problem: Problem, slots: Ints, room: Floats) -> Ints:
    """Replicas [I, S] of each option that `room` [P] holds alone."""
    seats = np.floor(room[problem.pool[slots]] / problem.units[slots] + SLACK).astype(np.int64)
    return np.where(slots >= 0, np.maximum(seats, 0), 0)


def _sensible(
    problem: Problem, curves: Curves, members: Ints, slots: Ints, least: Ints, room: Floats,
    owner: Ints, counts: Ints, work: Floats, total: Ints, costs: Floats,
) -> Mixes:  # fmt: skip
    """Those mixes that fit, have enough replicas and are worth more than with one replica of the last slot less."""
    worth = curves.at(members[owner], work) - costs
    good = total >= least[owner]
    better = (counts[-1, 1:] == 0) | ~good[:-1] | (worth[1:] > worth[:-1])
    good[1:] &= better
    kept = np.flatnonzero(good)
    counts, owner, worth = counts[:, kept], owner[kept], worth[kept]
    use = np.zeros((problem.pools, len(kept)))
    everyone = np.arange(len(kept))
    for slot in range(len(counts)):
        k = slots[:, slot][owner]
        use[problem.pool[k], everyone] += problem.units[k] * counts[slot]
    kept = np.flatnonzero((use <= room[:, None] + SLACK).all(axis=0))
    owner = owner[kept]
    first = np.searchsorted(owner, np.arange(len(members)))
    return Mixes(owner, first, counts[:, kept], use[:, kept], worth[kept])
