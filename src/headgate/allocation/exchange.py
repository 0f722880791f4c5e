"""From prices to whole replicas: take each pipeline's best mix, make it fit, fill what is left, then change a few
pipelines' mixes together while that helps.

Everything is measured in regret: the bound less an allocation's value is the sum of its mixes' regrets and the
price of the capacity it leaves idle, so the search keeps what has little of both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headgate.allocation.arrays import Floats, Ints
from headgate.allocation.bound import Bound
from headgate.allocation.mixes import SLACK, Mixes

_TOGETHER = 32  # changes that are tried at once where capacity is filled


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard the search tries: `rounds` of joint changes of `core` pipelines each, with `width` partial answers,
    while the gap is above `enough`. With no more pipelines than `whole`, one search over all, `width_whole` wide,
    that mostly proves the best. Before all that, the best at once where it takes no more than `cells` sums."""

    rounds: int = 1
    core: int = 8
    width: int = 100
    enough: float = 0.002
    whole: int = 16
    width_whole: int = 2000
    cells: int = 400_000


@dataclass(frozen=True, slots=True)
class Chosen:
    """The mix [I] of each pipeline and a bound that may be lower than the prices' own."""

    mix: Ints
    bound: float


def choose_mixes(mixes: Mixes, bound: Bound, room: Floats, seats: Ints, effort: Effort) -> Chosen:
    """One mix for each pipeline that together fit `room` [P]. `seats` [S, I] are counts that fit for certain."""
    chosen = _relieve(mixes, bound, room, mixes.firsts(bound.regret <= 0.0))
    if chosen is None:
        chosen = mixes.firsts((mixes.counts == seats[:, mixes.owner]).all(axis=0))
    chosen = _fill(mixes, bound, room, chosen)
    if len(chosen) <= effort.whole:
        everyone = np.arange(len(chosen))
        chosen, missed = _search(mixes, bound, room, chosen, everyone, effort.width_whole)
        listed, others = bound.value - bound.loose - missed, bound.value - bound.margin
        return Chosen(chosen, max(float(mixes.worth[chosen].sum()), listed, others))
    skip = 0
    for _ in range(effort.rounds):
        if bound.value - float(mixes.worth[chosen].sum()) <= effort.enough * abs(bound.value):
            break
        core = _ambiguous(mixes, bound, chosen, skip, effort.core)
        better, _missed = _search(mixes, bound, room, chosen, core, effort.width)
        skip = 0 if (better != chosen).any() else skip + effort.core
        chosen = _fill(mixes, bound, room, better)
    return Chosen(chosen, bound.value)


def _relieve(mixes: Mixes, bound: Bound, room: Floats, chosen: Ints) -> Ints | None:
    """`chosen` with smaller mixes until no pool is over its capacity; None where that does not work out."""
    chosen = chosen.copy()
    looked_at = 4 * len(chosen)
    for _ in range(24):
        over = mixes.use.take(chosen, axis=1).sum(axis=1) - room
        bad = over > SLACK
        if not bad.any():
            return chosen
        before = chosen.copy()
        loss = bound.regret - bound.regret[chosen][mixes.owner]
        near = np.arange(len(loss))
        if looked_at < len(loss):
            near = np.flatnonzero(loss <= np.partition(loss, looked_at)[looked_at])
        owner = mixes.owner[near]
        freed = mixes.use.take(chosen[owner], axis=1) - mixes.use.take(near, axis=1)
        relief = (np.minimum(freed[bad] / over[bad][:, None], 1.0)).sum(axis=0)
        fits = (freed >= np.where(bad, 0.0, over)[:, None] - SLACK).all(axis=0) & (relief > SLACK)
        able = np.flatnonzero(fits)
        able = able[np.argsort(loss[near[able]] / relief[able], kind="stable")]
        applied, left = False, over.tolist()
        for place in able.tolist():
            i = owner[place]
            if chosen[i] != before[i]:
                continue
            # Why lists: a few numbers at a time are quicker so than as arrays.
            parts = freed[:, place].tolist()
            rest = [more - part for more, part in zip(left, parts, strict=True)]
            helps = any(more > SLACK and part > SLACK for more, part in zip(left, parts, strict=True))
            if helps and all(part >= -SLACK or after <= SLACK for after, part in zip(rest, parts, strict=True)):
                chosen[i], applied, left = near[place], True, rest
                if max(left) <= SLACK:
                    return chosen
        if not applied and looked_at >= len(loss):
            return None
        looked_at *= 4
    return None


def _fill(mixes: Mixes, bound: Bound, room: Floats, chosen: Ints) -> Ints:
    """`chosen` with single pipelines' mixes changed for more valuable ones while any fits."""
    chosen, near = chosen.copy(), np.arange(len(mixes.owner))
    while True:
        free = np.maximum(room - mixes.use.take(chosen, axis=1).sum(axis=1), 0.0)
        held = chosen.take(mixes.owner.take(near))
        loss = bound.regret.take(near) - bound.regret.take(held)
        # Why enough: a gain is the price of the units taken less the regret added, and `free` is all there is. Why for
        # good: what a change gains is lost to all further ones.
        good = (loss < bound.prices @ free + SLACK) & (mixes.worth.take(near) > mixes.worth.take(held) + SLACK)
        near, held, loss = near[good], held[good], loss[good]
        more = mixes.use.take(near, axis=1) - mixes.use.take(held, axis=1)
        fits = np.flatnonzero((more <= free[:, None] + SLACK).all(axis=0))
        if not len(fits):
            return chosen
        # Least regret first: that is the gain beyond what the units are worth to the others.
        fits = fits[np.argsort(loss[fits], kind="stable")[:_TOGETHER]]
        _, first = np.unique(mixes.owner[near[fits]], return_index=True)
        fits = fits[np.sort(first)]
        over = (np.cumsum(more[:, fits], axis=1) > free[:, None] + SLACK).any(axis=0)
        fits = fits[: int(np.argmax(over)) if over.any() else None]
        chosen[mixes.owner[near[fits]]] = near[fits]


def _ambiguous(mixes: Mixes, bound: Bound, chosen: Ints, skip: int, number: int) -> Ints:
    """Pipelines [number] whose mix could change at the least regret, after the first `skip` such; sorted."""
    if len(chosen) <= number:
        return np.arange(len(chosen))
    loss = bound.regret - bound.regret[chosen][mixes.owner]
    loss[chosen] = np.inf
    nearest = np.minimum.reduceat(loss, mixes.first)
    return np.sort(np.argsort(nearest, kind="stable")[skip : skip + number])


def _search(
    mixes: Mixes, bound: Bound, room: Floats, chosen: Ints, core: Ints, width: int
) -> tuple[Ints, float]:  # fmt: skip
    """The best mixes of the pipelines `core` while the others keep theirs, and what the search may have missed.

    Pipeline by pipeline all partial answers are kept that can still beat `chosen`, at most `width` of them. Returns
    the mixes [I] and the smallest regret that an answer not looked at can have: no answer for these pipelines
    has less regret than the smaller of that and the one found.
    """
    free = room - mixes.use.take(chosen, axis=1).sum(axis=1) + mixes.use.take(chosen[core], axis=1).sum(axis=1)
    prices = bound.prices
    limit = float(bound.regret[chosen[core]].sum() + prices @ (free - mixes.use.take(chosen[core], axis=1).sum(axis=1)))
    ends = np.append(mixes.first[1:], len(mixes.worth))
    ways = [mixes.first[i] + np.flatnonzero(bound.regret[mixes.first[i] : ends[i]] < limit - SLACK) for i in core]
    if any(not len(way) for way in ways):
        return chosen, limit
    # Wide choices last: the set of partial answers stays small for longer.
    order = sorted(range(len(core)), key=lambda place: (len(ways[place]), place))
    lowest = [mixes.use.take(ways[place], axis=1).min(axis=1) for place in order]
    highest = [mixes.use.take(ways[place], axis=1).max(axis=1) for place in order]
    least, most = sum(lowest, np.zeros_like(room)), sum(highest, np.zeros_like(room))
    used, regret = np.zeros((len(room), 1)), np.zeros(1)
    trail: list[tuple[Ints, Ints]] = []
    missed = limit
    for step, place in enumerate(order):
        way = ways[place]
        least, most = least - lowest[step], most - highest[step]
        parts = (used[:, :, None] + mixes.use.take(way, axis=1)[:, None, :]).reshape(len(room), -1)
        sums = (regret[:, None] + bound.regret[way][None, :]).ravel()
        idle = np.maximum((free - most)[:, None] - parts, 0.0)
        good = (sums + prices @ idle < limit - SLACK) & (parts <= (free - least)[:, None] + SLACK).all(axis=0)
        kept = np.flatnonzero(good)
        if len(kept) > width // 8:
            kept = kept[_best_of_equal_use(parts[:, kept], sums[kept])]
        if len(kept) > width:
            low = sums[kept] + prices @ idle[:, kept]
            ranked = np.argsort(low, kind="stable")
            missed = min(missed, float(low[ranked[width]]))
            kept = kept[np.sort(ranked[:width])]
        if not len(kept):
            return chosen, missed
        used, regret = parts[:, kept], sums[kept]
        trail.append((kept // len(way), way[kept % len(way)]))
    result = chosen.copy()
    at = int(np.argmin(regret + prices @ (free[:, None] - used)))
    for step in range(len(order) - 1, -1, -1):
        back, mix = trail[step]
        result[core[order[step]]] = mix[at]
        at = int(back[at])
    return result, missed


def _best_of_equal_use(used: Floats, regret: Floats) -> Ints:
    """Of the partial answers that use the same units [P, F] those with the least regret [F]; indices, rising.

    Why: what comes after depends on the units used alone, so in one pool this makes the search exact and short.
    """
    rows = np.round(used, 6)
    order = np.lexsort((regret, *rows))
    rows = rows[:, order]
    fresh = np.append(True, (rows[:, 1:] != rows[:, :-1]).any(axis=0))
    return np.sort(order[fresh])
