"""Prices of the pools and what they prove: no allocation is worth more than every pipeline's best mix at
those prices, plus the price of all capacity.

Source: Lagrangian relaxation of the capacity rows (Everett 1963; Fisher 1981). Each pipeline's part is solved
over whole replicas and the true curve, so the bound is that of each pipeline's concave envelope over the mixes
it can really have, not of a smoothed curve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headgate.allocation.mixes import Mixes
from headgate.allocation.problem import Floats, Ints

COLD = (1.0, 0.5, 0.25, 0.12, 0.06, 0.06, 0.03, 0.03, 0.015, 0.015)
WARM = (0.05, 0.02, 0.01)
NEAR = 2.0


@dataclass(frozen=True, slots=True)
class Bound:
    """`prices` [P] of one unit, the `value` they prove, and each mix's `regret` [C]: how much less it is worth
    at these prices than its pipeline's best."""

    prices: Floats
    value: float
    regret: Floats

    @classmethod
    def of(cls, mixes: Mixes, room: Floats, prices: Floats) -> Bound:
        """The bound that `prices` prove for capacity `room` [P]."""
        net = mixes.worth - prices @ mixes.use
        best = np.maximum.reduceat(net, mixes.first)
        return cls(prices, float(best.sum() + prices @ room), best[mixes.owner] - net)


def find_bound(mixes: Mixes, room: Floats, warm: Floats | None) -> Bound:
    """Prices that make the bound nearly as low as it gets. `warm` [P] are those of a like problem."""
    top = np.maximum.reduceat(mixes.worth, mixes.first)
    least = np.minimum.reduceat(mixes.worth, mixes.first)
    spread = float((top - least).sum())
    asked = mixes.use[:, _first_of_best(mixes, mixes.worth, top)].sum(axis=1)
    tight = asked > room
    if not tight.any() or spread <= 0.0:
        return Bound.of(mixes, room, np.zeros_like(room))
    if warm is None or not (warm > 0.0).any():
        start = np.where(tight, 0.5 * spread / np.maximum(asked, 1e-12) , 0.0)
        prices = _descend(mixes, room, start, COLD[:5], spread)
    else:
        prices = warm
    first = Bound.of(mixes, room, prices)
    unit = _unit(first.prices, room, spread, len(mixes.first))
    near = mixes.pick(np.flatnonzero(first.regret <= NEAR * unit))
    prices = _descend(near, room, prices, WARM if warm is not None else COLD[5:], spread)
    last = Bound.of(mixes, room, prices)
    return last if last.value <= first.value else first


def _first_of_best(mixes: Mixes, score: Floats, best: Floats) -> Ints:
    """The index [I] of each pipeline's first mix that reaches `best` [I]."""
    there = np.flatnonzero(score >= best[mixes.owner])
    return there[np.searchsorted(mixes.owner[there], np.arange(len(best)))]


def _unit(prices: Floats, room: Floats, spread: float, pipelines: int) -> float:
    """Utility that one pipeline's capacity costs on the average: what a regret is large or small against."""
    return max(float(prices @ room), 0.02 * spread) / pipelines


def _descend(mixes: Mixes, room: Floats, prices: Floats, heats: tuple[float, ...], spread: float) -> Floats:
    """The prices with the lowest bound seen while Newton's method minimises ever less smoothed bounds.

    Smoothing takes each pipeline's best mix as a soft maximum with temperature `heats` (in units of what a
    pipeline spends on the average). Why: the bound is a sum of many kinked functions of few prices; smoothed, it
    has a small Hessian, and a handful of steps do what hundreds of subgradient steps would.
    """
    best_value, best = np.inf, prices
    scale = np.maximum(room, 1e-12)
    for heat in heats:
        unit = heat * _unit(prices, room, spread, len(mixes.first))
        net = mixes.worth - prices @ mixes.use
        top = np.maximum.reduceat(net, mixes.first)
        value = float(top.sum() + prices @ room)
        if value < best_value:
            best_value, best = value, prices
        soft = np.exp((net - top[mixes.owner]) / unit)
        soft /= np.add.reduceat(soft, mixes.first)[mixes.owner]
        weighted = mixes.use * soft
        mean = np.add.reduceat(weighted, mixes.first, axis=1)
        gradient = (room - mean.sum(axis=1)) * scale
        hessian = (weighted @ mixes.use.T - mean @ mean.T) / unit * np.outer(scale, scale)
        free = (prices > 0.0) | (gradient < 0.0)
        if not free.any():
            break
        matrix = hessian[np.ix_(free, free)]
        ridge = 1e-9 + 1e-3 * np.diag(matrix).max()
        matrix = matrix + np.diag(np.full(len(matrix), ridge))
        step = np.zeros_like(prices)
        step[free] = -np.linalg.solve(matrix, gradient[free]) * scale[free]
        reach = 0.7 * prices + 0.1 * spread / scale
        prices = np.maximum(prices + np.clip(step, -reach, reach), 0.0)
    top = np.maximum.reduceat(mixes.worth - prices @ mixes.use, mixes.first)
    return prices if float(top.sum() + prices @ room) < best_value else best
