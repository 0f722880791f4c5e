"""Prices of the pools and what they prove: no allocation is worth more than every pipeline's best mix at
those prices, plus the price of all capacity.

Source: Lagrangian relaxation of the capacity rows (Everett 1963; Fisher 1981). Each pipeline's part is solved
over whole replicas and the true curve, so the bound is that of each pipeline's concave envelope over the mixes
it can really have, not of a smoothed curve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headgate.allocation.arrays import Floats
from headgate.allocation.mixes import Mixes

NEAR = 2.0
SMALL = 1200
PATIENCE = 5


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
    top = mixes.best(mixes.worth)
    asked = mixes.use.take(top, axis=1).sum(axis=1)
    spread = float((mixes.worth[top] - np.minimum.reduceat(mixes.worth, mixes.first)).sum())
    tight = asked > room
    if not tight.any() or spread <= 0.0:
        return Bound.of(mixes, room, np.zeros_like(room))
    prices, heat = np.where(tight, 0.5 * spread / np.maximum(asked, 1e-12), 0.0), 0.06
    # Why not when small: starting anew costs the same there and cannot be misled.
    if warm is not None and (warm > 0.0).any() and len(mixes.worth) > SMALL:
        prices, heat = warm, 0.03
    else:
        prices = _descend(mixes, room, prices, spread, (1.0, 0.06), 6)
    rough = Bound.of(mixes, room, prices)
    for _ in range(3):
        near = mixes.pick(np.flatnonzero(rough.regret <= NEAR * _unit(rough.prices, room, spread, len(mixes.first))))
        steps = min(max(12000 // len(near.worth), 4), 30)
        prices = _descend(near, room, rough.prices, spread, (heat, heat / 4.0 ** (steps / 4.0)), steps)
        fine = Bound.of(mixes, room, prices)
        missed = fine.value - float(
            np.maximum.reduceat(near.worth - prices @ near.use, near.first).sum() + prices @ room
        )
        rough = fine if fine.value <= rough.value else rough
        # Why again: mixes that were left out as too far off turned out to matter at the new prices.
        if missed <= 1e-4 * abs(rough.value):
            break
    return rough


def _unit(prices: Floats, room: Floats, spread: float, pipelines: int) -> float:
    """Utility that one pipeline's capacity costs on the average: what a regret is large or small against."""
    return max(float(prices @ room), 0.02 * spread) / pipelines


def _descend(
    mixes: Mixes, room: Floats, prices: Floats, spread: float, heats: tuple[float, float], steps: int
) -> Floats:
    """The prices with the lowest bound seen while Newton's method minimises ever less smoothed bounds.

    Smoothing takes each pipeline's best mix as a soft maximum, from the first of `heats` (in units of what a
    pipeline spends on the average) down to the second in `steps`. Why: the bound is a sum of many kinked
    functions of few prices; smoothed, it has a small Hessian, and a handful of steps do what hundreds of
    subgradient steps would.
    """
    unit = _unit(prices, room, spread, len(mixes.first))
    heat, cooling = heats[0] * unit, (heats[1] / heats[0]) ** (1.0 / max(steps - 1, 1))
    exact, smooth, gradient, hessian = _smoothed(mixes, room, prices, heat)
    best_value, best, reach, stalled = exact, prices, 1.0, 0
    widest = 0.1 * spread / np.maximum(room, 1e-12)
    for _ in range(steps):
        most = reach * (0.7 * prices + widest)
        trial = np.maximum(prices + np.clip(_newton(prices, gradient, hessian), -most, most), 0.0)
        exact, value, slope, bend = _smoothed(mixes, room, trial, heat * cooling)
        stalled = 0 if exact < best_value - 1e-5 * abs(best_value) else stalled + 1
        if exact < best_value:
            best_value, best = exact, trial
        if stalled > PATIENCE:
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
    free = np.flatnonzero((prices > 0.0) | (gradient < 0.0))
    step = np.zeros_like(prices)
    matrix = hessian[np.ix_(free, free)]
    # Why a ridge by row: pools differ in size and unit; a flat direction is left to the limits of the step.
    matrix = matrix + np.diag(1e-4 * np.diag(matrix) + 1e-12)
    step[free] = -np.linalg.solve(matrix, gradient[free])
    return step
