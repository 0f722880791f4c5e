"""Limits that all pools share: a budget of money, a cap on power.

A limit has a price too (utility per watt, utility per money an hour). The price is searched over few solves, each with
that much more cost; what comes out is cut until it fits for certain, then what is left is filled. At any prices the
solver's bound plus the price of the whole limit is a bound of what the limits allow, so the certificate stays.
Source: Lagrangian relaxation (H. Everett, 1963).

Knows nothing of what money is worth: that is in the options' costs (TargetSettings.hold_cost).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from headgate.allocation.arrays import Floats, Ints
from headgate.allocation.mixes import SLACK
from headgate.allocation.problem import Curves, Problem, Solution, work_of, worth_of
from headgate.allocation.solver import Effort, solve

_WIDEN, _WIDEN_KNOWN = 4.0, 1.2  # the first step from a guessed price and from the last turn's; steps grow
_CLOSE = 1.03  # prices nearer than this to each other are the same
_ENOUGH = 0.001  # the gap to the bound at which the search ends
_SOLVES = 12  # for each limit in each round
_FEW = 40  # so few options that each may be looked at once more
_LEAPS = 1024  # options times replicas at once that are looked at where a limit is filled up
_ROUNDS = 2  # over several limits: the price of one moves that of the other


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """`use` [K] is what one replica of each option takes (watts, money per hour), `most` what all may take together."""

    use: Floats
    most: float

    def __post_init__(self) -> None:
        """Raise ValueError where a use or the limit is negative."""
        object.__setattr__(self, "use", np.asarray(self.use, dtype=np.float64))
        if self.use.min(initial=0.0) < 0.0 or self.most < 0.0:
            raise ValueError("use, most: must not be negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limited:
    """An allocation within limits.

    `solution` is as `solve` gives it, but for its gains, which are net of the limits' prices. `prices` [L] are utility
    per unit of each limit, 0 where it does not bind; `used` [L] is what the replicas take.
    """

    solution: Solution
    prices: Floats
    used: Floats


def solve_within(
    problem: Problem, limits: Sequence[Limit], *, last: Limited | None = None, effort: Effort | None = None
) -> Limited:
    """The allocation with nearly the highest value that no limit forbids, and the bound that proves how near.

    Where not even the floors fit, those of the last classes and of least worth go: a limit is never exceeded. A lower
    class gets of a limit what the classes before it leave; the bound is then rank by rank, as in Solution. `last` is
    the answer to a like problem and makes this one faster. Raises ValueError when a limit does not fit the options.
    """
    if any(limit.use.shape != problem.pipeline.shape for limit in limits):
        raise ValueError("limits: one use for each option is needed")
    if not problem.options:
        return Limited(solution=solve(problem), prices=np.zeros(len(limits)), used=np.zeros(len(limits)))
    search = _Search(problem, limits, last, effort)
    for rank in np.unique(problem.rank):
        if not search.fits(int(rank)):
            search.find_prices()
            break
    return search.answer()


class _Search:
    """The search for the limits' prices; keeps the best allocation that fits and the lowest bound seen."""

    def __init__(self, problem: Problem, limits: Sequence[Limit], last: Limited | None, effort: Effort | None) -> None:
        self._problem, self._effort = problem, effort
        self._curves = Curves(problem.loads, problem.values)
        self._use = np.array([limit.use for limit in limits]).reshape(len(limits), problem.options)
        self._most = np.array([limit.most for limit in limits])
        self._last = last.solution if last else None
        self._hints = last.prices.copy() if last and last.prices.shape == self._most.shape else np.zeros(len(limits))
        self._prices = np.zeros(len(limits))
        self._rank = problem.rank[problem.pipeline]

    def fits(self, rank: int) -> bool:
        """Whether the classes up to `rank` have what they want without any price while the others have their floors."""
        problem = self._problem
        self._class = rank
        self._open = replace(problem, cap=np.where(problem.rank > rank, problem.floor, problem.cap))
        self._bound, self._best = np.inf, (-np.inf, -np.inf)
        return bool((self._try(self._prices) <= self._most + SLACK).all())

    def find_prices(self) -> None:
        """Find the prices at which the class that `fits` found too greedy takes about what there is."""
        for _ in range(_ROUNDS if len(self._most) > 1 else 1):
            before = self._prices
            for limit in range(len(self._most)):
                self._prices = self._with_price_of(limit)
            if np.array_equal(before, self._prices):
                return

    def answer(self) -> Limited:
        """The best allocation that fits, with what was proven."""
        if self._problem.options <= _FEW and self._bound - self._best[0] > _ENOUGH * abs(self._bound):
            self._exchange()
        problem, counts, value = self._problem, self._counts, self._best[1]
        seated = np.bincount(problem.pipeline, counts, problem.pipelines).astype(np.int64)
        solution = replace(
            self._solution,
            counts=counts,
            value=value,
            bound=max(self._bound, value),
            unseated=(np.minimum(problem.floor, problem.cap) - seated).clip(0),
        )
        return Limited(solution=solution, prices=self._prices, used=self._use @ counts)

    def _with_price_of(self, limit: int) -> Floats:
        """The prices [L] with this limit's such that its use is just within, the others as they are."""
        prices, most = self._prices.copy(), self._most[limit] + SLACK
        prices[limit] = low = 0.0
        if self._try(prices)[limit] <= most:
            return prices
        high = np.inf
        # Why the last one first: mostly it is near. Else what all of it is worth on the average.
        price = self._hints[limit] or (abs(self._solution.value) + SLACK) / max(float(self._most[limit]), SLACK)
        step = _WIDEN_KNOWN if self._hints[limit] else _WIDEN
        for _ in range(_SOLVES):
            prices[limit] = price
            used = self._try(prices)[limit]
            low, high = (low, price) if used <= most else (price, high)
            if high <= low * _CLOSE or self._bound - self._best[0] <= _ENOUGH * abs(self._bound):
                break
            if low > 0.0 and high < np.inf:
                price = float(np.sqrt(low * high))
            else:
                price, step = (low * step if low > 0.0 else high / step), step**1.5
        self._hints[limit] = prices[limit] = high if high < np.inf else low
        return prices

    def _try(self, prices: Floats) -> Floats:
        """Solve at these prices, keep what that proves and yields; what it uses [L] before it is made to fit."""
        priced = np.where(self._rank == self._class, prices @ self._use, 0.0)
        asked = replace(self._open, cost=self._open.cost + priced)
        warm = self._last.prices if self._last else None
        self._solution = self._last = solve(asked, prices=warm, effort=self._effort)
        counts = self._last.counts
        room = self._most - self._use @ np.where(self._rank == self._class, 0, counts)
        self._bound = min(self._bound, self._last.bound + float(prices @ room))
        self._keep(self._fill(self._cut(counts)))
        return self._use @ counts

    def _keep(self, fitted: Ints) -> bool:
        """Keep counts that fit if they are the best so far: for the classes up to this one, then for all."""
        earlier = np.where(self._rank <= self._class, fitted, 0)
        found = (worth_of(self._problem, earlier, self._curves), worth_of(self._problem, fitted, self._curves))
        if found <= self._best:
            return False
        self._best, self._counts = found, fitted
        return True

    def _exchange(self) -> None:
        """Give up one replica of an option, or all, for what then fits in their place, while that helps.

        Why: where few pipelines share a limit, whole replicas leave much of it unused at any price.
        """
        options = np.arange(self._problem.options)
        while any(
            self._keep(self._fill(self._fill(np.where(options == k, left, self._counts), without=int(k))))
            for k in np.flatnonzero(self._counts)
            for left in (self._counts[k] - 1, 0)
        ):
            pass

    def _cut(self, counts: Ints) -> Ints:
        """`counts` with replicas taken away until no limit is exceeded: last classes and least loss first."""
        problem, counts = self._problem, counts.copy()
        while (over := np.maximum(self._use @ counts - self._most, 0.0)).max(initial=0.0) > SLACK:
            relief = np.minimum(self._use, over[:, None])[over > SLACK] / over[over > SLACK][:, None]
            k = np.flatnonzero((counts > 0) & (relief.sum(axis=0) > 0.0))
            loss = -self._gain(counts, k, np.full(len(k), -1)) / relief[:, k].sum(axis=0)
            seated = np.bincount(problem.pipeline, counts, problem.pipelines)
            needed = (seated <= problem.floor)[problem.pipeline[k]]
            counts[k[np.lexsort((loss, -self._rank[k], needed))[0]]] -= 1
        return counts

    def _fill(self, counts: Ints, without: int = -1) -> Ints:
        """`counts` with further replicas that fit and gain, of no option `without`: first classes first, then those
        that gain most for what they use."""
        problem, counts = self._problem, counts.copy()
        scarce = self._use / np.maximum(self._most, SLACK)[:, None]
        share = scarce.max(axis=0, initial=0.0) + problem.units / np.maximum(problem.capacity, SLACK)[problem.pool]
        # Why several at once: on a curve that is not concave the first replica alone may bring nothing.
        steps = np.arange(1, max(min(_LEAPS // problem.options, int(problem.cap.max())), 1) + 1)
        option, step = np.repeat(np.arange(problem.options), len(steps)), np.tile(steps, problem.options)
        while True:
            room = np.where(np.arange(problem.options) == without, 0, self._room(counts))
            k, number = option[fits := step <= room[option]], step[fits]
            gain = self._gain(counts, k, number)
            if gain.max(initial=0.0) <= SLACK:
                return counts
            k, number, gain = k[gain > SLACK], number[gain > SLACK], gain[gain > SLACK]
            best = np.lexsort((-gain / (share[k] * number), self._rank[k]))[0]
            counts[k[best]] += number[best]

    def _room(self, counts: Ints) -> Ints:
        """How many further replicas of each option [K] pools, caps and limits have room for, were it alone."""
        problem = self._problem
        free = problem.capacity - np.bincount(problem.pool, problem.units * counts, problem.pools)
        room = (problem.cap - np.bincount(problem.pipeline, counts, problem.pipelines))[problem.pipeline]
        room = np.minimum(room, (free[problem.pool] + SLACK) / problem.units)
        for use, left in zip(self._use, self._most - self._use @ counts, strict=True):
            room = np.where(use > 0.0, np.minimum(room, (left + SLACK) / np.maximum(use, SLACK)), room)
        return np.floor(room).astype(np.int64)

    def _gain(self, counts: Ints, k: Ints, step: Ints) -> Floats:
        """What `step` replicas more (or less) of each of the options `k` add to the objective, each alone."""
        problem, owner = self._problem, self._problem.pipeline[k]
        work = work_of(problem, counts)[owner]
        gain = self._curves.at(owner, work + step * problem.speed[k]) - self._curves.at(owner, work)
        before = counts[k] - problem.now[k]
        starts, stops = (before + step).clip(0) - before.clip(0), (-before - step).clip(0) - (-before).clip(0)
        return gain - step * problem.cost[k] - starts * problem.start_cost[k] - stops * problem.stop_cost[k]
