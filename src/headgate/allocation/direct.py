"""The best answer at once, where pipelines and units are few: each pipeline's mixes against each state of the pools.

Exact, and without prices: those follow from the answer. Knows nothing of floors but the seats that must be kept.
Source: dynamic programming over the capacity used (R. Bellman, Dynamic Programming, 1957).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from headgate.allocation.arrays import Floats, Ints
from headgate.allocation.mixes import SLACK, Menu

_AXES = 32  # of an array, at most
_PARTS = 4  # of the smallest replica; all replicas must be so many parts of it as are whole


@dataclass(frozen=True, slots=True)
class Best:
    """The best replicas [S, I] by option slot, the `value` they have, and what a unit of each pool [P] is worth."""

    counts: Ints
    prices: Floats
    value: float


def choose_directly(menu: Menu, room: Floats, cells: int) -> Best | None:
    """The best answer for the `room` [P]; None where that takes more than `cells` sums, or units are no multiples.

    A pool's price is what the last of its units are worth each: one of them or several together, the least that is.
    """
    pipelines = len(menu.members)
    grid = tuple((menu.limit.max(axis=1) + 1).tolist())
    if pipelines * prod(grid) > cells or len(room) + len(grid) > _AXES:
        return None
    wholes = _Wholes.of(menu, room)
    if wholes is None or max(prod(wholes.states) * int((menu.limit + 1).prod(axis=0).sum()), wholes.cells) > cells:
        return None
    sizes = (menu.limit + 1).T.tolist()
    numbers: Ints = np.indices(grid).reshape(len(grid), -1)
    worth = _worth(menu, numbers)
    shaped = worth.reshape(-1, *grid)
    table = _Table(wholes)
    for i, size in enumerate(sizes):
        table.add(i, np.ascontiguousarray(shaped[(i, *map(slice, size))]))
    counts = table.best(sizes)
    places = np.ravel_multi_index(tuple(counts), grid)
    prices = table.prices()
    for pool in np.flatnonzero(np.isinf(prices)):
        prices[pool] = _first_gain(menu, worth, numbers, int(pool))
    return Best(counts, prices, float(worth[np.arange(pipelines), places].sum()))


def _worth(menu: Menu, numbers: Ints) -> Floats:
    """What mixes are worth, [I, M]: of the `numbers` [S, M] of replicas, -inf where a pipeline may not have so many."""
    pipelines, mixes = len(menu.members), numbers.shape[1]
    total = numbers.sum(axis=0)[:, None]
    forbidden = (total < menu.least) | (total > menu.cap)
    work, fees = np.zeros((mixes, pipelines)), np.zeros((mixes, pipelines))
    for slot, number in enumerate(numbers[:, :, None]):
        work += menu.speed[slot] * number
        fees += menu.fees(slot, number)
        forbidden |= number > menu.limit[slot]
    return np.where(forbidden, -np.inf, menu.curves.at(menu.members, work) - fees).T


def _first_gain(menu: Menu, worth: Floats, numbers: Ints, pool: int) -> float:
    """What one unit brings at most beyond the seats, in a pool where floors have taken them all."""
    there = menu.units * (menu.pool == pool)
    seats = (numbers[:, None, :] == menu.seats[:, :, None]).all(axis=0).argmax(axis=1)
    more = there.T @ numbers - (there * menu.seats).sum(axis=0)[:, None]
    gain = worth - worth[np.arange(len(worth)), seats][:, None]
    return float(np.where(more > SLACK, gain / np.maximum(more, SLACK), 0.0).max(initial=0.0))


@dataclass(frozen=True, slots=True)
class _Wholes:
    """Pools in steps of `step` [P] units each: `states` by pool, the `margin` of steps that one pipeline's mixes take
    at most, and what a replica takes, [I][S] (pool, steps)."""

    step: Floats
    states: tuple[int, ...]
    margin: tuple[int, ...]
    taken: list[list[tuple[int, int]]]

    @property
    def cells(self) -> int:
        """Of all states and margins together."""
        return prod(states + more for states, more in zip(self.states, self.margin, strict=True))

    @classmethod
    def of(cls, menu: Menu, room: Floats) -> _Wholes | None:
        """None where what replicas take are no multiples of a step."""
        step = np.ones(len(room))
        steps = np.zeros_like(menu.pool)
        for pool in range(len(room)):
            here = (menu.pool == pool) & (menu.units > 0.0)
            if not here.any():
                continue
            units = menu.units[here]
            for parts in range(1, _PARTS + 1):
                number = units * (parts / units.min())
                whole = np.rint(number)
                if (np.abs(number - whole) <= SLACK).all():
                    break
            else:
                return None
            step[pool], steps[here] = units.min() / parts, whole
        reach = [((menu.pool == pool) * menu.limit * steps).sum(axis=0) for pool in range(len(room))]
        most = np.array([one.sum() for one in reach])
        margin = tuple(int(one.max()) for one in reach)
        # One more than can be of use is enough to tell that there is too much.
        states = np.minimum(np.floor(np.maximum(room, 0.0) / step + SLACK), most + 1.0).astype(np.int64) + 1
        taken = [list(zip(*row, strict=True)) for row in zip(menu.pool.T.tolist(), steps.T.tolist(), strict=True)]
        return cls(step, tuple(states.tolist()), margin, taken)


class _Table:
    """The best value of the pipelines so far, by what they may use of each pool at most."""

    def __init__(self, wholes: _Wholes) -> None:
        self._wholes, margin = wholes, wholes.margin
        # Why a margin: looking back beyond an empty pool finds that it cannot be, with no case of its own.
        self._cells = np.full([more + states for more, states in zip(margin, wholes.states, strict=True)], -np.inf)
        self._values = self._cells[tuple(slice(more, None) for more in margin)]
        self._values[...] = 0.0
        self._begin = sum(more * stride for more, stride in zip(margin, self._cells.strides, strict=True))
        self._picked: list[Ints] = []

    def add(self, i: int, worth: Floats) -> None:
        """Go on with pipeline `i`, whose mixes by replicas of each option are `worth` [..., S axes]."""
        taken, strides = self._wholes.taken[i], self._cells.strides
        back = tuple(-steps * strides[pool] for pool, steps in taken)
        shape = self._wholes.states + worth.shape
        before = np.ndarray(shape, np.float64, self._cells, self._begin, strides + back)
        sums = np.add(before, worth, out=np.empty(shape)).reshape(-1, worth.size)
        picked = sums.argmax(axis=1)
        self._values[...] = sums[np.arange(len(sums)), picked].reshape(self._wholes.states)
        self._picked.append(picked)

    def best(self, sizes: list[list[int]]) -> Ints:
        """The replicas [S, I] of the best answer."""
        counts: list[tuple[int, ...]] = []
        state = [states - 1 for states in self._wholes.states]
        for size, taken, picked in zip(
            reversed(sizes), reversed(self._wholes.taken), reversed(self._picked), strict=True
        ):
            place = 0
            for one, states in zip(state, self._wholes.states, strict=True):
                place = place * states + one
            rest, mix = int(picked[place]), list[int]()
            for most, (pool, steps) in zip(reversed(size), reversed(taken), strict=True):
                rest, number = divmod(rest, most)
                state[pool] -= number * steps
                mix.append(number)
            counts.append(tuple(reversed(mix)))
        return np.array(counts[::-1], np.int64).T

    def prices(self) -> Floats:
        """What the last of each pool's units are worth each [P]; infinite where the seats need all there is."""
        prices = np.zeros(len(self._wholes.states))
        for pool, states in enumerate(self._wholes.states):
            line = self._values[tuple(slice(None) if one == pool else -1 for one in range(len(prices)))]
            if states > 1:
                least = (line[-1] - line[:-1]) / np.arange(states - 1, 0, -1)
                prices[pool] = max(float(least.min()), 0.0) / self._wholes.step[pool]
        return prices
