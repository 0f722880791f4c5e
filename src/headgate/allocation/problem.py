"""What the solver is asked and what it answers: value curves, options and pools as arrays. Knows no method."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from headgate.allocation.arrays import Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """I pipelines want replicas by K options (one pipeline's replicas in one pool) out of P pools.

    `capacity` [P] is each pool's units. Options, each [K]: `pipeline` and `pool` are indices, `units` what one
    replica takes of its pool (> 0), `speed` the capacity it adds to its pipeline in that pipeline's own work
    units (> 0), `cost` what holding it costs in utility (money, energy), `now` the replicas there already,
    `start_cost` and `stop_cost` the utility lost by each replica started beyond `now` or stopped below it
    (all >= 0).

    Value curves: `values` [I, G] is the utility, weighted, of capacity `loads` [I, G]; both rise along a row,
    `loads` strictly and from 0; a line joins the points and the last value holds beyond them. A curve need not
    be concave. `floor` and `cap` [I] bound a pipeline's replicas in all its options together; `rank` [I] is
    its class: 0 gets what it wants before 1 sees anything.
    """

    capacity: Floats
    pipeline: Ints
    pool: Ints
    units: Floats
    speed: Floats
    cost: Floats
    now: Ints
    start_cost: Floats
    stop_cost: Floats
    loads: Floats
    values: Floats
    floor: Ints
    cap: Ints
    rank: Ints

    def __post_init__(self) -> None:
        """Raise ValueError with the field's name where shapes, signs or indices cannot be."""
        for name in ("capacity", "units", "speed", "cost", "start_cost", "stop_cost", "loads", "values"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        for name in ("pipeline", "pool", "now", "floor", "cap", "rank"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.int64))
        for name in ("pool", "units", "speed", "cost", "now", "start_cost", "stop_cost"):
            if getattr(self, name).shape != self.pipeline.shape:
                raise ValueError(f"{name}: one entry for each option is needed")
            if getattr(self, name).min(initial=0) < 0:
                raise ValueError(f"{name}: must not be negative")
        for name in ("floor", "cap", "rank"):
            if getattr(self, name).shape != (len(self.loads),):
                raise ValueError(f"{name}: one entry for each pipeline is needed")
        if self.loads.ndim != 2 or self.loads.shape != self.values.shape or self.loads.shape[1] < 2:
            raise ValueError("loads, values: the same shape [pipelines, points] with two points or more is needed")
        if self.options and not (self.units.min() > 0 and self.speed.min() > 0):
            raise ValueError("units, speed: must be above 0")
        if self.options and (self.pipeline.max() >= self.pipelines or self.pool.max() >= self.pools):
            raise ValueError("pipeline, pool: an index is past the last pipeline or pool")
        if self.pipelines and (self.loads[:, 0].any() or not (self.loads[:, 1:] > self.loads[:, :-1]).all()):
            raise ValueError("loads: each row must begin with 0 and rise")
        if (self.values[:, 1:] < self.values[:, :-1]).any():
            raise ValueError("values: a row must not fall; np.maximum.accumulate(values, axis=1) mends noise")

    @property
    def pipelines(self) -> int:
        return len(self.loads)

    @property
    def options(self) -> int:
        return len(self.pipeline)

    @property
    def pools(self) -> int:
        return len(self.capacity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """Who gets how many replicas, and how good that can be at most.

    `counts` [K] are replicas by option. `prices` [R, P] are utility per unit of each pool, a row for each rank
    that occurs, in order: give them to the next solve. `value` is the objective reached, `bound` what no
    allocation can exceed (rank by rank: given what earlier ranks took and the seats kept for later floors).
    `unseated` [I] counts floor replicas that found no capacity.
    """

    counts: Ints
    prices: Floats
    value: float
    bound: float
    unseated: Ints

    @property
    def gap(self) -> float:
        """How far `value` may be from the best, as a part of `bound`."""
        return max(0.0, self.bound - self.value) / max(abs(self.bound), 1e-9)


def work_of(problem: Problem, counts: Ints) -> Floats:
    """The capacity [I] that `counts` [K] give each pipeline, in its own work units."""
    return np.bincount(problem.pipeline, problem.speed * counts, problem.pipelines).astype(np.float64)


def worth_of(problem: Problem, counts: Ints, curves: Curves | None = None) -> float:
    """The objective of `counts` [K]: values less holding, starting and stopping costs."""
    work = work_of(problem, counts)
    change = counts - problem.now
    costs = problem.cost * counts + problem.start_cost * change.clip(0) + problem.stop_cost * (-change).clip(0)
    curves = curves or Curves(problem.loads, problem.values)
    return float(curves.at(np.arange(problem.pipelines), work).sum() - costs.sum())


def worth_by_class(problem: Problem, counts: Ints) -> list[float]:
    """What each class's pipelines reach with `counts` [K], the first class first."""
    values: list[float] = []
    for rank in np.unique(problem.rank):
        mine = problem.rank == rank
        own = np.where(mine[problem.pipeline], counts, problem.now)
        curves = np.where(mine[:, None], problem.values, 0.0)
        # Rounded: what differs in the last digits is no reason to look at the next class no more.
        values.append(round(worth_of(replace(problem, values=curves), own), 9))
    return values


class Curves:
    """Value curves [I, G], read at many points at once by straight lines between the grid's points."""

    def __init__(self, loads: Floats, values: Floats) -> None:
        self.loads, self.values = loads, values
        self.last = loads[:, -1]
        self.segments = loads.shape[1] - 1
        step: Floats = np.diff(loads, axis=1)
        slope: Floats = np.diff(values, axis=1) / step
        self._slope = slope.ravel()
        self._base = (values[:, :-1] - slope * loads[:, :-1]).ravel()
        self._left = np.ascontiguousarray(loads[:, :-1]).ravel()
        self._scale = self.segments / self.last
        self._even = bool((np.abs(step * self._scale[:, None] - 1.0) < 1e-9).all())
        # Why: where the curve reaches its last value, not where the grid ends, more capacity stops to help.
        reached = (values >= values[:, -1:]).argmax(axis=1)
        self.enough = loads[np.arange(len(loads)), reached]

    def at(self, row: Ints, work: Floats) -> Floats:
        """The value of capacity `work` [..., N] on the curves `row` [N]."""
        index: Ints = self.segment(row, work) + row * self.segments
        value: Floats = self._slope.take(index)
        value *= np.minimum(work, self.last[row])
        value += self._base.take(index)
        return value

    def one(self, row: int, work: float) -> float:
        """The value of capacity `work` on one curve: what `at` says, without its arrays."""
        if self._even:
            segment = min(int(work * self._scale[row]), self.segments - 1)
        else:
            segment = int(np.searchsorted(self.loads[row, 1:-1], work, side="right"))
        place = row * self.segments + segment
        return float(self._slope[place] * min(work, self.last[row]) + self._base[place])

    def segment(self, row: Ints, work: Floats) -> Ints:
        """Between which two points of the curves `row` [N] capacity `work` [..., N] lies: 0 is the first and second."""
        if self._even:
            return np.minimum((work * self._scale[row]).astype(np.int64), self.segments - 1)
        first: Ints = row * self.segments
        index: Ints = first
        stride = 1 << (self.segments - 1).bit_length()
        while stride := stride >> 1:
            there: Ints = np.minimum(index + stride, first + self.segments - 1)
            index = np.where(self._left[there] <= work, there, index)
        return index - first
