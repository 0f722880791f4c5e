"""From prices to whole replicas: take each pipeline's best mix, make it fit, fill what is left, then change a few
pipelines' mixes together while that helps.

Everything is measured in regret: the bound less an allocation's value is the sum of its mixes' regrets and the
price of the capacity it leaves idle, so the search keeps what has little of both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headgate.allocation.bound import Bound
from headgate.allocation.mixes import SLACK, Mixes
from headgate.allocation.problem import Floats, Ints


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard the search tries: `rounds` of joint changes, of `core` pipelines each, `width` partial answers."""

    rounds: int = 6
    core: int = 12
    width: int = 600


@dataclass(frozen=True, slots=True)
class Chosen:
    """The mix [I] of each pipeline and a bound that may be lower than the prices' own."""

    mix: Ints
    bound: float


def choose_mixes(mixes: Mixes, bound: Bound, room: Floats, seated: Ints, effort: Effort) -> Chosen:
    """One mix for each pipeline that together fit `room` [P]. `seated` [I] are mixes that fit for certain."""
    chosen = _relieve(mixes, bound, room, mixes.firsts(bound.regret <= 0.0))
    if chosen is None:
        chosen = seated
    chosen = _fill(mixes, bound, room, chosen)
    proven = bound.value
    worst = 0
    for _ in range(effort.rounds):
        value = float(mixes.worth[chosen].sum())
        if proven - value <= 1e-9 * max(1.0, abs(proven)):
            break
        core = _ambiguous(mixes, bound, chosen, worst, effort.core)
        better, missed = _search(mixes, bound, room, chosen, core, effort.width)
        if len(core) == len(chosen):
            chosen = better
            value = float(mixes.worth[chosen].sum())
            proven = min(proven, max(value, bound.value - missed))
            break
        worst = 0 if (better != chosen).any() else worst + effort.core
        chosen = _fill(mixes, bound, room, better)
    return Chosen(chosen, proven)


def _relieve(mixes: Mixes, bound: Bound, room: Floats, chosen: Ints) -> Ints | None:
    """`chosen` with smaller mixes until no pool is over its capacity; None where that does not work out."""
    chosen = chosen.copy()
    for _ in range(24):
        over = mixes.use[:, chosen].sum(axis=1) - room
        bad = over > SLACK
        if not bad.any():
            return chosen
        freed = mixes.use[:, chosen][:, mixes.owner] - mixes.use
        share = np.where(bad, over, 1.0)[:, None]
        relief = np.where(bad[:, None], np.minimum(freed / share, 1.0), 0.0).sum(axis=0)
        fits = (freed >= np.where(bad, 0.0, over)[:, None] - SLACK).all(axis=0)
        loss = bound.regret - bound.regret[chosen][mixes.owner]
        score = np.where(fits & (relief > SLACK), -loss / np.maximum(relief, SLACK), -np.inf)
        best = mixes.best(score)
        best = best[score[best] > -np.inf]
        for c in best[np.argsort(-score[best], kind="stable")]:
            old = chosen[mixes.owner[c]]
            change = mixes.use[:, c] - mixes.use[:, old]
            if change[over > SLACK].min(initial=0.0) < -SLACK and (change <= np.maximum(-over, 0.0) + SLACK).all():
                chosen[mixes.owner[c]] = c
                over = over + change
                if (over <= SLACK).all():
                    return chosen
        if not len(best):
            return None
    return None


def _fill(mixes: Mixes, bound: Bound, room: Floats, chosen: Ints) -> Ints:
    """`chosen` with single pipelines' mixes changed for more valuable ones while any fits."""
    chosen = chosen.copy()
    for _ in range(64):
        free = room - mixes.use[:, chosen].sum(axis=1)
        gain = mixes.worth - mixes.worth[chosen][mixes.owner]
        hopeful = np.flatnonzero(gain > SLACK)
        owner = mixes.owner[hopeful]
        more = mixes.use[:, hopeful] - mixes.use[:, chosen[owner]]
        hopeful = hopeful[(more <= np.maximum(free, 0.0)[:, None] + SLACK).all(axis=0)]
        if not len(hopeful):
            return chosen
        # Least regret first: that is the gain beyond what the units are worth to the others.
        owner = mixes.owner[hopeful]
        loss = bound.regret[hopeful] - bound.regret[chosen[owner]]
        done: set[int] = set()
        for place in np.argsort(loss, kind="stable")[:256]:
            c, i = int(hopeful[place]), int(owner[place])
            if i in done:
                continue
            change = mixes.use[:, c] - mixes.use[:, chosen[i]]
            if (change <= np.maximum(free, 0.0) + SLACK).all():
                done.add(i)
                free = free - change
                chosen[i] = c
    return chosen


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
    free = room - mixes.use[:, chosen].sum(axis=1) + mixes.use[:, chosen[core]].sum(axis=1)
    prices = bound.prices
    limit = float(bound.regret[chosen[core]].sum() + prices @ (free - mixes.use[:, chosen[core]].sum(axis=1)))
    ends = np.append(mixes.first[1:], len(mixes.worth))
    ways = [mixes.first[i] + np.flatnonzero(bound.regret[mixes.first[i] : ends[i]] < limit - SLACK) for i in core]
    if any(not len(way) for way in ways):
        return chosen, limit
    # Wide choices last: the set of partial answers stays small for longer.
    order = sorted(range(len(core)), key=lambda place: (len(ways[place]), place))
    lowest = [mixes.use[:, ways[place]].min(axis=1) for place in order]
    highest = [mixes.use[:, ways[place]].max(axis=1) for place in order]
    least, most = sum(lowest, np.zeros_like(room)), sum(highest, np.zeros_like(room))
    used, regret = np.zeros((len(room), 1)), np.zeros(1)
    trail: list[tuple[Ints, Ints]] = []
    missed = limit
    for step, place in enumerate(order):
        way = ways[place]
        least, most = least - lowest[step], most - highest[step]
        parts = (used[:, :, None] + mixes.use[:, way][:, None, :]).reshape(len(room), -1)
        sums = (regret[:, None] + bound.regret[way][None, :]).ravel()
        idle = np.maximum((free - most)[:, None] - parts, 0.0)
        good = (sums + prices @ idle < limit - SLACK) & (parts <= (free - least)[:, None] + SLACK).all(axis=0)
        kept = np.flatnonzero(good)
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
