"""The mixes that are nearly the best at given prices, out of the many thousands that pipelines may have.

They are found option by option: what has been chosen so far is followed up only while the cheapest way to go on could
still come near the best. Source: branch and bound (A. Land and A. Doig, 1960), for all pipelines at once. What those
that are not listed are worth at most is told with the list, so that what is proven with it holds for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from headgate.allocation.arrays import Floats, Ints
from headgate.allocation.mixes import SLACK, Bools, Menu, Mixes

_FEWEST = 4000  # mixes that are never too many in all
_MOST = 40  # mixes for each pipeline on the average that are too many, should so many be alike


def near_mixes(menu: Menu, prices: Floats, near: float, fall: float = 0.0) -> Mixes:
    """The mixes that come near their pipeline's best when `prices` [P] are paid; fewer if too many.

    Near are those within `near`, and those that may be the best where prices fall by a part of `fall`. Why both: the
    dearer what a pipeline has, the more a price that moves a little changes what is best for it.
    """
    offer, most = _Offer(menu, prices), menu.most
    goal = menu.alone.best(*menu.alone.pay(prices))
    goal -= near + fall * np.maximum(most - goal, 0.0)
    draft = _Draft.empty(menu)
    last = len(menu.option) - 1
    for slot in range(last + 1):
        rest = offer.rest(slot)
        if slot:
            draft, goal = _thinned(draft, rest.hope(draft), goal)
        draft = offer.extend(draft, slot, *rest.span(draft, goal))
    net = draft.value - draft.paid
    net[_useless(menu, draft, net, offer.price[last])] = -np.inf
    draft, goal = _thinned(draft, net, goal)
    counts = draft.counts()
    use = np.zeros((len(menu.room), len(draft.owner)))
    flat, places = use.ravel(), np.arange(len(draft.owner))
    for slot in range(last + 1):
        flat[(menu.pool[slot] * len(places))[draft.owner] + places] += menu.units[slot][draft.owner] * counts[slot]
    fits = np.flatnonzero((use <= menu.room[:, None] + SLACK).all(axis=0))
    owner, net = draft.owner.take(fits), (draft.value - draft.paid).take(fits)
    counts, use = counts.take(fits, axis=1), use.take(fits, axis=1)
    first = np.searchsorted(owner, np.arange(len(goal)))
    return Mixes(owner, first, counts, use, net + prices @ use, prices, goal, most, menu.pools)


def _thinned(draft: _Draft, hope: Floats, goal: Floats) -> tuple[_Draft, Floats]:
    """Those of the draft whose `hope` [N] is up to the `goal` [I], and a higher goal where that leaves too many."""
    above = hope - goal[draft.owner]
    kept = np.flatnonzero((above >= 0.0) | draft.safe)
    most = _FEWEST + _MOST * len(goal)
    if len(kept) > most:
        cut = float(-np.partition(-above[kept], most)[most])
        return draft.pick(kept[(above[kept] >= cut) | draft.safe[kept]]), goal + cut
    return draft.pick(kept), goal


def _useless(menu: Menu, draft: _Draft, net: Floats, price: Floats) -> Bools:
    """Whether a mix [N] has too few replicas, or is no better than with one less in the last slot, were that free."""
    short = draft.total < menu.least[draft.owner]
    back, _ = draft.steps[-1]
    idle = (back[1:] == back[:-1]) & ~short[:-1] & (np.diff(net) + price[draft.owner[1:]] <= 0.0)
    return short | np.append(False, idle)


@dataclass(frozen=True, slots=True)
class _Draft:
    """N mixes as far as the slots that were looked at, sorted by `owner` [N].

    Their `work`, `paid` costs and prices, `total` replicas, the `value` of the work, and whether they are `safe`: what
    is seated already. `steps` has for each slot the place [N] in the draft before, and the replicas added [N].
    """

    owner: Ints
    work: Floats
    paid: Floats
    total: Ints
    value: Floats
    safe: Bools
    steps: tuple[tuple[Ints, Ints], ...] = ()

    @classmethod
    def empty(cls, menu: Menu) -> _Draft:
        """One without replicas for each pipeline."""
        number = len(menu.members)
        none = np.zeros(number)
        return cls(np.arange(number), none, none, np.zeros(number, np.int64), menu.values[0], np.ones(number, np.bool_))

    def pick(self, kept: Ints) -> _Draft:
        """Those at the places `kept`, rising."""
        back, added = self.steps[-1]
        return _Draft(
            self.owner[kept], self.work[kept], self.paid[kept], self.total[kept], self.value[kept], self.safe[kept],
            (*self.steps[:-1], (back[kept], added[kept])),
        )  # fmt: skip

    def counts(self) -> Ints:
        """The replicas [S, N] by slot."""
        counts = np.empty((len(self.steps), len(self.owner)), np.int64)
        place = np.arange(len(self.owner))
        for slot in range(len(self.steps) - 1, -1, -1):
            back, added = self.steps[slot]
            counts[slot] = added[place]
            place = back[place]
        return counts


class _Offer:
    """The menu at prices: what replicas of each option cost, and what mixes can come to.

    An option's replicas cost two straight lines of their number, whichever is higher: one up to those that are there,
    which saves stopping them, and one from there on, which pays for starting more.
    """

    def __init__(self, menu: Menu, prices: Floats) -> None:
        self._menu = menu
        self.price = prices[menu.pool] * menu.units
        held = menu.cost + self.price
        self._keep, self._more = held - menu.stop, held + menu.start
        self._stopped, self._started = menu.stop * menu.now, menu.start * menu.now
        # Why not infinite: where no option is left, no work is worth this.
        nothing = (menu.values[-1] - menu.values[0]) / menu.loads[1] + 1.0
        rates = np.where(menu.limit > 0, np.maximum(self._keep / menu.speed, 0.0), nothing)
        # From each slot on: what work costs at least, and what is paid whatever is chosen.
        self._rates = np.minimum.accumulate(rates[::-1], axis=0)[::-1]
        dues = self._stopped + np.minimum(self._keep, 0.0) * menu.now
        self._dues = np.add.accumulate(dues[::-1], axis=0)[::-1]

    def rest(self, slot: int) -> _Rest:
        """What going on with this slot and those after it is worth."""
        return _Rest(self._menu, slot, self._rates[slot], self._dues[slot])

    def extend(self, draft: _Draft, slot: int, low: Ints, high: Ints) -> _Draft:
        """The draft with each number from `low` to `high` [N] of replicas of the slot's options."""
        menu = self._menu
        counts = high - low + 1
        ends = np.cumsum(counts)
        back = np.repeat(np.arange(len(counts)), counts)
        added: Ints = np.arange(int(ends[-1])) - (ends - counts - low)[back]
        owner = draft.owner[back]
        work = draft.work[back] + menu.speed[slot][owner] * added
        return _Draft(
            owner=owner,
            work=work,
            paid=draft.paid[back] + self._fees(slot, owner, added),
            total=draft.total[back] + added,
            value=menu.curves.at(menu.members[owner], work),
            safe=draft.safe[back] & (added == menu.seats[slot][owner]),
            steps=(*draft.steps, (back, added)),
        )

    def _fees(self, slot: int, owner: Ints, number: Ints) -> Floats:
        """What `number` [N] replicas of the option of `owner` [N] cost."""
        keep = self._keep[slot][owner]
        keep *= number
        keep += self._stopped[slot][owner]
        more = self._more[slot][owner]
        more *= number
        more -= self._started[slot][owner]
        return np.maximum(keep, more, out=more)


class _Rest:
    """What mixes can still come to from a slot on, where work costs `rate` or more and `dues` are paid [I]."""

    def __init__(self, menu: Menu, slot: int, rate: Floats, dues: Floats) -> None:
        self._menu, self._slot, self._rate, self._dues = menu, slot, rate, dues
        self._line = menu.values - rate * menu.loads
        # The best from each point of the curve on, [G, I], but for what the work so far saves.
        self._ahead = _highest_so_far(self._line[::-1])[::-1]

    def hope(self, draft: _Draft) -> Floats:
        """What each mix of the draft [N] comes to at most, whatever is added."""
        menu, owner = self._menu, draft.owner
        work = np.minimum(draft.work, menu.loads[-1][owner])
        after = menu.curves.segment(menu.members[owner], work) + 1
        ahead = self._ahead[after, owner] + self._rate[owner] * work
        return np.maximum(ahead, draft.value) - self._dues[owner] - draft.paid

    def span(self, draft: _Draft, goal: Floats) -> tuple[Ints, Ints]:
        """The fewest and the most replicas [N] of this slot with which the `goal` [I] can be reached."""
        menu, slot, owner = self._menu, self._slot, draft.owner
        speed, seats = menu.speed[slot][owner], menu.seats[slot][owner]
        need = (goal + self._dues)[owner] + draft.paid - self._rate[owner] * draft.work
        good = (self._ahead.take(owner, axis=1) >= need).sum(axis=0)
        until = menu.loads[np.minimum(good, len(menu.loads) - 1), owner]
        # Why one less: what reaches the first point from where on nothing is good enough is too much.
        enough = np.ceil((until - draft.work) / speed - SLACK) - (good < len(menu.loads))
        high = enough.clip(0.0).astype(np.int64)
        # Why, at any prices: what is there may be cheaper to keep than to stop, though it adds nothing.
        high = np.maximum(high, np.where(menu.cost[slot] < menu.stop[slot], menu.now[slot], 0)[owner])
        high = np.minimum(np.minimum(high, menu.limit[slot][owner]), menu.cap[owner] - draft.total)
        low = np.zeros_like(high)
        if slot == len(menu.option) - 1:
            behind = _highest_so_far(self._line)
            bad = (behind.take(owner, axis=1) < need).sum(axis=0)
            since = menu.loads[np.maximum(bad - 1, 0), owner]
            few = np.floor((since - draft.work) / speed + SLACK) + (bad > 0)
            low = np.minimum(few.clip(0.0).astype(np.int64), high)
        return np.where(draft.safe, np.minimum(low, seats), low), np.where(draft.safe, np.maximum(high, seats), high)


def _highest_so_far(rows: Floats) -> Floats:
    """The highest of each row [G, I] and those before it. Why row by row: twice as quick as `accumulate` over rows."""
    highest = rows.copy()
    for before, here in pairwise(highest):
        np.maximum(before, here, out=here)
    return highest
