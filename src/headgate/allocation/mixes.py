"""Mixes of replicas that pipelines may have, and what they are made of. Knows no prices but those they were listed at.

A mix is a whole number of replicas for each option of one pipeline.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from headgate.allocation.arrays import Floats, Ints
from headgate.allocation.problem import Curves, Problem

SLACK = 1e-9

_SAMPLED = 32  # replicas of one option alone are all looked at up to so many; of more, so many numbers

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Mixes:
    """C mixes of I pipelines. Each pipeline has one mix at least.

    `owner` [C] is the pipeline (0..I-1, rising), `first` [I] each pipeline's first mix, `counts` [S, C] the
    replicas by option slot, `use` [P, C] units of each pool, `worth` [C] value less costs. Mixes that are not listed
    are worth `most` [I] or less, and `beyond` [I] or less when what they use is paid at `prices` [P]; they use those
    pools only that `pools` [P, I] tells.
    """

    owner: Ints
    first: Ints
    counts: Ints
    use: Floats
    worth: Floats
    prices: Floats
    beyond: Floats
    most: Floats
    pools: Bools

    def firsts(self, good: Bools) -> Ints:
        """The index [I] of each pipeline's first mix that is `good` [C]; every pipeline has one."""
        there = np.flatnonzero(good)
        return there[np.searchsorted(self.owner[there], np.arange(len(self.first)))]

    def unlisted(self, prices: Floats) -> Floats:
        """What mixes that are not listed are worth at most, by pipeline [I], when `prices` [P] are paid.

        Why: where no price falls by more than a part d, no more than d of what a mix paid is given back to it.
        """
        part = (self.prices - prices) / np.maximum(self.prices, 1e-12)
        fallen = (part[:, None] * self.pools).max(axis=0, initial=0.0)
        return self.beyond + fallen * np.maximum(self.most - self.beyond, 0.0)


@dataclass(frozen=True, slots=True)
class Alone:
    """Mixes of one option only: `numbers` [N, K] of replicas and what they are `worth` [N, K], of `pool` and `units`
    [K], each pipeline's options from `first` [I] on; and the seats, of `seat_pool` and `seat_units` [S, I], which are
    worth `seated` [I]."""

    first: Ints
    pool: Ints
    units: Floats
    numbers: Floats
    worth: Floats
    seat_pool: Ints
    seat_units: Floats
    seated: Floats

    def pay(self, prices: Floats) -> tuple[Floats, Floats]:
        """What these mixes [N, K] and the seats [I] cost at `prices` [P]."""
        return prices[self.pool] * self.units * self.numbers, (prices[self.seat_pool] * self.seat_units).sum(axis=0)

    def best(self, paid: Floats, paid_seats: Floats) -> Floats:
        """What the best of each pipeline's [I] come to when so much is paid."""
        return np.maximum(np.maximum.reduceat((self.worth - paid).max(axis=0), self.first), self.seated - paid_seats)


class Menu:
    """What I pipelines may choose from: S options at most for each, in slots (`option` [S, I], -1: none).

    Of each option, [S, I]: `pool`, `units`, `speed`, `now`, `cost`, `start` and `stop` as in Problem, `limit` replicas
    that may be of use, `seats` that must be listed as a mix. `least` and `cap` [I] bound a mix's replicas. The curves
    are `loads` and `values` [G, I].
    """

    def __init__(
        self, problem: Problem, curves: Curves, members: Ints, slots: Ints, seats: Ints, room: Floats
    ) -> None:  # fmt: skip
        """For the pipelines `members` [I], whose options are `slots` [all, S].

        A mix has as many replicas as `seats` [K] or more, and fits `room` [P] alone.
        """
        self.curves, self.members, self.room = curves, members, room
        self.option: Ints = np.ascontiguousarray(slots[members].T)
        there = self.option >= 0
        option = np.where(there, self.option, 0)
        self.seats = np.where(there, seats[option], 0)
        self.least: Ints = self.seats.sum(axis=0)
        self.cap = problem.cap[members]
        self.pool, self.speed = problem.pool[option], problem.speed[option]
        self.units, self.cost = (np.where(there, one[option], 0.0) for one in (problem.units, problem.cost))
        self.start, self.stop = (np.where(there, one[option], 0.0) for one in (problem.start_cost, problem.stop_cost))
        self.now = np.where(there, problem.now[option], 0)
        holds = np.floor(room[self.pool] / problem.units[option] + SLACK)
        needed = np.ceil(curves.enough[members] / self.speed - SLACK)
        # Why `now` counts: replicas that are there may be cheaper to keep than to stop, needed or not.
        useful = np.minimum(np.maximum(np.maximum(needed, self.now), self.least), self.cap)
        self.limit = np.where(there, np.minimum(holds, useful).clip(0.0), 0.0).astype(np.int64)
        self.loads = np.ascontiguousarray(curves.loads[members].T)
        self.values = np.ascontiguousarray(curves.values[members].T)

    def fees(self, slot: int | slice, number: Ints | Floats) -> Floats:
        """What `number` [..., I] replicas of each pipeline's option cost, but for what they use."""
        some = np.asarray(number, np.float64)
        change, cost = some - self.now[slot], self.cost[slot] * some
        return cost + np.maximum(self.start[slot] * change, -self.stop[slot] * change)

    @cached_property
    def alone(self) -> Alone:
        """The mixes of one option only, and the seats."""
        # Why the last slot too: whoever has no option at all has one mix without replicas.
        there = self.option >= 0
        there[-1] = True
        owner, slot = np.nonzero(there.T)
        place = slot * len(self.members) + owner
        speed, cost, start, stop = (one.take(place) for one in (self.speed, self.cost, self.start, self.stop))
        now, limit = self.now.take(place), self.limit.take(place)
        most = int(limit.max(initial=0))
        parts = np.arange(min(most, _SAMPLED) + 1.0)[:, None]
        number: Floats = np.minimum(parts, limit) if most <= _SAMPLED else np.rint(parts * (limit / _SAMPLED))
        worth = self.curves.at(self.members.take(owner), speed * number)
        worth -= cost * number
        change = number - now
        worth -= np.maximum(start * change, -stop * change)
        # All replicas of the other options are stopped.
        worth += stop * now - (self.stop * self.now).sum(axis=0).take(owner)
        worth[number < self.least.take(owner)] = -np.inf
        seated = self.curves.at(self.members, (self.speed * self.seats).sum(axis=0))
        seated -= self.fees(slice(None), self.seats).sum(axis=0)
        return Alone(
            first=np.searchsorted(owner, np.arange(len(self.members))),
            pool=self.pool.take(place),
            units=self.units.take(place),
            numbers=number,
            worth=worth,
            seat_pool=self.pool,
            seat_units=self.units * self.seats,
            seated=seated,
        )

    @property
    def most(self) -> Floats:
        """What no mix of each pipeline [I] is worth more than, whatever it uses."""
        return self.values[-1] - (np.minimum(self.cost, self.stop) * self.now).sum(axis=0)

    @property
    def pools(self) -> Bools:
        """Whether each pipeline's mixes may use each pool [P, I]."""
        pools = np.zeros((len(self.room), len(self.members)), np.bool_)
        for pool, limit in zip(self.pool, self.limit, strict=True):
            pools[pool, np.arange(len(pool))] |= limit > 0
        return pools

    @property
    def spread(self) -> float:
        """The value of all capacity that helps, all pipelines together."""
        return float((self.values[-1] - self.values[0]).sum())
