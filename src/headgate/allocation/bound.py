"""Prices of the pools and what they prove: no allocation is worth more than every pipeline's best mix at
those prices, plus the price of all capacity.

Source: Lagrangian relaxation of the capacity rows (Everett 1963; Fisher 1981). Each pipeline's part is solved
over whole replicas and the true curve, so the bound is that of each pipeline's concave envelope over the mixes
it can really have, not of a smoothed curve.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from headgate.allocation.arrays import Floats
from headgate.allocation.mixes import Menu, Mixes
from headgate.allocation.offer import near_mixes

_NEAR = 50.0  # how far from the best mixes are listed, all pipelines together, in what one spends on the average
_FALL = 0.06  # the part by which prices may fall before mixes matter that were not listed
_LEAP = 3.0  # times that part is how far prices are moved before mixes are listed again
_LOOSE = 4e-3  # the part of the bound that mixes not listed may add to it
_SCALINGS = 8
_CLOSE = 0.01
_DEARER = 1e-3
_YIELD = 0.4  # the part by which less is asked for, at first, where all is dearer by one part
_ROUNDS = 8
_WIDER = 1.25
_PATIENCE = 5


@dataclass(frozen=True, slots=True)
class Bound:
    """`prices` [P] of one unit, the `value` they prove, and each mix's `regret` [C]: how much less it is worth
    at these prices than its pipeline's best.

    `loose` of the value is there for mixes that are not listed; with one of them, an allocation is `margin` or more
    below the value.
    """

    prices: Floats
    value: float
    regret: Floats
    loose: float
    margin: float

    @classmethod
    def of(cls, mixes: Mixes, room: Floats, prices: Floats) -> Bound:
        """The bound that `prices` prove for capacity `room` [P]."""
        net = mixes.worth - prices @ mixes.use
        best = np.maximum.reduceat(net, mixes.first)
        beyond = mixes.unlisted(prices)
        proven = np.maximum(best, beyond)
        return cls(
            prices=prices,
            value=float(proven.sum() + prices @ room),
            regret=best[mixes.owner] - net,
            loose=float((proven - best).sum()),
            margin=float((proven - beyond).min()),
        )


def find_bound(menu: Menu, room: Floats, warm: Floats | None) -> tuple[Mixes, Bound]:
    """The mixes that matter, and prices that make the bound nearly as low as it gets.

    `warm` [P] are the prices of a like problem: where they still hold, mixes are listed once.
    """
    spread, pipelines = menu.spread, len(menu.members)
    if spread <= 0.0:
        mixes = near_mixes(menu, np.zeros_like(room), 0.0)
        return mixes, Bound.of(mixes, room, mixes.prices)
    known = warm if warm is not None and (warm > 0.0).any() else None
    prices = _scaled(menu, room, _first_prices(menu, room) if known is None else known)
    near, fall = _NEAR / pipelines, _FALL
    found: list[tuple[Mixes, Bound]] = []
    for _ in range(_ROUNDS):
        unit = _unit(prices, room, spread, pipelines)
        mixes = near_mixes(menu, prices, near * unit, fall)
        steps = min(max(6000 // len(mixes.worth), 3), 30)
        heats = (0.03, 0.03 / 4.0 ** (steps / 4.0))
        # Why limits: of what is best at quite other prices, hardly a mix is listed.
        span = _LEAP * fall * (prices + 0.1 * spread / np.maximum(room, 1e-12))
        bound = Bound.of(mixes, room, _descend(mixes, room, unit, span, heats, steps))
        found.append((mixes, bound))
        within = (bound.prices == 0.0) | (np.abs(bound.prices - prices) < 0.999 * span)
        if within.all() and bound.loose <= _LOOSE * abs(bound.value):
            break
        # Why again: at these prices mixes matter that were too far off to be listed.
        prices, near, fall = bound.prices, _WIDER * near, _WIDER * fall
    return min(found, key=lambda one: one[1].value)


def _first_prices(menu: Menu, room: Floats) -> Floats:
    """Prices [P] in proportion to the work that a unit does, at which all capacity is worth what there is to gain."""
    there = menu.option >= 0
    if not there.any():
        return np.zeros_like(room)
    work = np.where(there, menu.speed / np.where(there, menu.units, 1.0), 0.0)
    number = np.bincount(menu.pool.ravel(), there.ravel(), len(room))
    rate = np.bincount(menu.pool.ravel(), work.ravel(), len(room)) / np.maximum(number, 1)
    return rate * menu.spread / float(rate @ np.maximum(room, menu.units[there].min()))


def _scaled(menu: Menu, room: Floats, prices: Floats) -> Floats:
    """The `prices` [P] times that factor with which about all capacity is asked for, were mixes of one option each.

    Why: much of what happens makes all pools dearer or cheaper together, and each listing at wrong prices costs more
    than all of this.
    """
    alone, paid = menu.alone, float(prices @ room)
    if paid <= 0.0:
        return prices
    each, seats = alone.pay(prices)

    def gain(factor: float) -> float:
        return float(alone.best(factor * each, factor * seats).sum())

    low, high, factor, yields, last = 0.0, np.inf, 1.0, _YIELD, None
    for _ in range(_SCALINGS):
        # Why by difference: what is asked for is what all lose by dearer units, and the best of each need not be found.
        asked = (gain(factor) - gain((1.0 + _DEARER) * factor)) / (_DEARER * factor)
        excess, place = math.log(max(asked / paid, 1e-3)), math.log(factor)
        if abs(excess) < _CLOSE:
            break
        low, high = (factor, high) if excess > 0.0 else (low, factor)
        if last is not None:
            yields = min(max((last[0] - excess) / (place - last[1]), 0.2), 4.0)
        last = excess, place
        guess = factor * math.exp(min(max(excess / yields, -1.5), 1.5))
        factor = guess if low < guess < high else 0.5 * (low + high)
    return factor * prices


def _unit(prices: Floats, room: Floats, spread: float, pipelines: int) -> float:
    """Utility that one pipeline's capacity costs on the average: what a regret is large or small against."""
    return max(float(prices @ room), 0.02 * spread) / pipelines


def _descend(mixes: Mixes, room: Floats, unit: float, span: Floats, heats: tuple[float, float], steps: int) -> Floats:
    """The prices with the lowest bound seen while Newton's method minimises ever less smoothed bounds.

    Smoothing takes each pipeline's best mix as a soft maximum, from the first of `heats` (in parts of `unit`, what a
    pipeline spends on the average) down to the second in `steps`; prices move by `span` [P] at most.
    Why: the bound is a sum of many kinked functions of few prices; smoothed, it has a small Hessian, and a handful of
    steps do what hundreds of subgradient steps would.
    """
    prices = mixes.prices
    heat, cooling = heats[0] * unit, (heats[1] / heats[0]) ** (1.0 / max(steps - 1, 1))
    exact, smooth, gradient, hessian = _smoothed(mixes, room, prices, heat)
    best_value, best, reach, stalled = exact, prices, 1.0, 0
    low, high = np.maximum(prices - span, 0.0), prices + span
    for _ in range(steps):
        most = reach * span
        trial = np.clip(prices + np.clip(_newton(prices, gradient, hessian), -most, most), low, high)
        exact, value, slope, bend = _smoothed(mixes, room, trial, heat * cooling)
        stalled = 0 if exact < best_value - 1e-5 * abs(best_value) else stalled + 1
        if exact < best_value:
            best_value, best = exact, trial
        if stalled > _PATIENCE:
            break
        # Why exact against smoothed: it tells a leap too far without a second look at the cooler bound.
        if exact <= smooth:
            prices, smooth, gradient, hessian = trial, value, slope, bend
            heat, reach = heat * cooling, min(4.0 * reach, 1.0)
        else:
            reach *= 0.25
    return best


def _smoothed(mixes: Mixes, room: Floats, prices: Floats, heat: float) -> tuple[float, float, Floats, Floats]:
    """The bound that `prices` prove, the smoothed bound, its gradient [P] and its Hessian [P, P]."""
    net = mixes.worth - prices @ mixes.use
    top = np.maximum.reduceat(net, mixes.first)
    soft = np.exp((net - top[mixes.owner]) / heat)
    total = np.add.reduceat(soft, mixes.first)
    soft /= total[mixes.owner]
    weighted = mixes.use * soft
    mean = np.add.reduceat(weighted, mixes.first, axis=1)
    exact = float(top.sum() + prices @ room)
    hessian = (weighted @ mixes.use.T - mean @ mean.T) / heat
    return exact, exact + heat * float(np.log(total).sum()), room - mean.sum(axis=1), hessian


def _newton(prices: Floats, gradient: Floats, hessian: Floats) -> Floats:
    """The step [P] to the lowest point of the quadratic, for prices that are free to move that way."""
    free = (prices > 0.0) | (gradient < 0.0)
    matrix = np.where(free & free[:, None], hessian, 0.0)
    # Why a ridge by row: pools differ in size and unit; a flat direction is left to the limits of the step.
    matrix.flat[:: len(free) + 1] = np.where(free, 1.0001 * hessian.diagonal() + 1e-12, 1.0)
    return -np.linalg.solve(matrix, np.where(free, gradient, 0.0))
