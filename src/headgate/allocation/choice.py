"""How many replicas each pipeline should have by each of its configurations, and what that is worth to it.

Joins pipelines and capacity to the solver's problem and reads its answer back. Knows nothing of places.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from headgate.allocation.capacity import Capacity, Pool
from headgate.allocation.limits import Limit, solve_within
from headgate.allocation.packing import Board, fits_devices, share_alone
from headgate.allocation.pipeline import Configuration
from headgate.allocation.problem import Curves, Problem, Solution
from headgate.allocation.proposals import merge, take_better
from headgate.allocation.settings import TargetSettings
from headgate.allocation.side import Side
from headgate.allocation.solver import solve
from headgate.allocation.speeds import relative_speed
from headgate.allocation.state import State
from headgate.allocation.targets import Option, Want, build_problem
from headgate.allocation.wants import build_want, plan_stretches

_AT_WORK_S = 1.0  # after its last request a pipeline still counts as being at work


@dataclass(frozen=True, slots=True)
class Choice:
    """The solver's answer in words of pipelines.

    By (pipeline, configuration key): `counts` in replicas, `speeds` in replicas of the pipeline's first configuration,
    `costs` in the utility that holding one takes.
    """

    problem: Problem
    solution: Solution
    counts: dict[tuple[str, str], int]
    speeds: dict[tuple[str, str], float]
    costs: dict[tuple[str, str], float]
    wants: dict[str, Want]
    rows: dict[str, int]
    curves: Curves

    def worth(self, pipeline: str, keys: Iterable[str], more: float = 0.0) -> float:
        """The utility to a pipeline of replicas of these configurations, and of `more` replicas of its first."""
        row = self.rows.get(pipeline)
        if row is None:
            return 0.0
        return self.curves.one(row, more + sum(self.speeds.get((pipeline, key), 0.0) for key in keys))

    def least_cost(self, side: Side) -> float:
        """The utility that holding one more replica costs at least."""
        costs = [cost for one in side.spec.configurations if (cost := self.costs.get((side.name, one.key))) is not None]
        return min(costs, default=0.0)

    def next_gain(self, side: Side) -> float:
        """What one more replica would bring beyond the seats it has."""
        keys = [seat.configuration for seat in side.seats]
        return self.worth(side.name, keys, 1.0) - self.worth(side.name, keys)


def choose(sides: Sequence[Side], state: State, board: Board) -> Choice | None:
    """The replicas that serve everyone best, given the seats that floors and wakers have. None: nobody has a say."""
    capacity, settings = state.capacity, state.settings
    places = {pool.name: _Place.of(number, pool) for number, pool in enumerate(capacity.pools)}
    wants: dict[str, Want] = {}
    keys: list[tuple[str, str]] = []
    for side in sides:
        told = _list_ways(side, places)
        want = _want(side, [(one, places[one.pool]) for one in told], settings)
        if want is not None:
            wants[side.name] = want
            keys += [(side.name, one.key) for one in told]
    if not wants:
        return None
    members = [side for side in sides if side.name in wants]
    problem = build_problem(list(wants.values()), _free(capacity, members, board), settings)
    configurations = [one for side in members for one in _list_ways(side, places)]
    solution = _solve(problem, state, configurations)
    if not fits_devices(capacity, zip(configurations, solution.counts.tolist(), strict=True)):
        problem = replace(problem, units=np.array([share_alone(one.share) for one in configurations]))
        solution = _solve(problem, state, configurations)
    solution = _take_proposal(problem, solution, state, keys, configurations)
    return Choice(
        problem=problem,
        solution=solution,
        counts=dict(zip(keys, solution.counts.tolist(), strict=True)),
        speeds=dict(zip(keys, problem.speed.tolist(), strict=True)),
        costs=dict(zip(keys, problem.cost.tolist(), strict=True)),
        wants=wants,
        rows={name: row for row, name in enumerate(wants)},
        curves=Curves(problem.loads, problem.values),
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """A pool as options tell of it: its number, and what all its nodes have together."""

    number: int
    pool: Pool
    share: float
    memory_bytes: int

    @classmethod
    def of(cls, number: int, pool: Pool) -> _Place:
        """What there is of the pool."""
        return cls(number, pool, pool.share, sum(node.memory_bytes for node in pool.nodes))

    def units(self, one: Configuration) -> float:
        """Devices that a replica takes, or as much of the pool as it takes of the memory, if that is more."""
        return max(one.share, self.share * one.memory_bytes / self.memory_bytes if self.memory_bytes else 0.0)


def _list_ways(side: Side, places: Mapping[str, _Place]) -> list[Configuration]:
    """The configurations that the pipeline may have replicas of: those that run, and those that may be started."""
    present = {one.configuration for one in side.present}
    return [
        one
        for one in side.spec.configurations
        if one.pool in places and (side.held or one in side.startable or one.key in present)
    ]


def _want(side: Side, ways: Sequence[tuple[Configuration, _Place]], settings: TargetSettings) -> Want | None:
    """What a pipeline wants, by each of its `ways`; None: nothing."""
    holds = sum(math.floor(place.share / one.share + 1e-9) for one, place in ways)
    most = min(holds, _most_useful(side))
    if not most:
        return None
    start_cost = settings.start_cost(sum(plan_stretches(side.spec, side.demand, settings)))
    stop_cost = settings.dwell if side.dwelling else 0.0
    running = Counter(one.configuration for one in side.present)
    options = tuple(
        Option(
            pool=place.number,
            units=place.units(one),
            speed=relative_speed(side.configuration, one, side.demand.corrections),
            now=running[one.key],
            cost=settings.hold_cost(place.pool, one.share),
            start_cost=start_cost,
            stop_cost=stop_cost,
        )
        for one, place in ways
    )
    # Why one: who is cut to nothing while it has work would be woken in the next turn, and that takes its time.
    is_lately = side.demand.idle_for_s < _AT_WORK_S and side.demand.steady > 0.0
    at_work = bool(side.present) and is_lately and not side.springs
    floor = min(max(len(side.seats), int(at_work)), most)
    return build_want(
        side.spec, side.demand, options, floor=floor, cap=most, settings=settings, warm=bool(side.resting)
    )


def _solve(problem: Problem, state: State, configurations: Sequence[Configuration]) -> Solution:
    """The solver's answer, within the limit of power if there is one."""
    warm = np.array(state.prices) if state.prices else None
    most = state.capacity.watts
    if most is None:
        return solve(problem, prices=warm)
    watts = {pool.name: pool.watts or 0.0 for pool in state.capacity.pools}
    use = np.array([one.share * watts[one.pool] for one in configurations])
    return solve_within(problem, [Limit(use=use, most=most)]).solution


def _take_proposal(
    problem: Problem, solution: Solution, state: State, keys: list[tuple[str, str]], options: Sequence[Configuration]
) -> Solution:
    """The solution, or what is proposed where that is better, finds its devices, and no limit is to be looked at."""
    if not state.proposal or state.capacity.watts is not None:
        return solution
    better = take_better(problem, solution, merge(state.proposal, keys, solution.counts))
    found = better is solution or fits_devices(state.capacity, zip(options, better.counts.tolist(), strict=True))
    return better if found else solution


def _most_useful(side: Side) -> int:
    """Replicas that the pipeline's load can use, by its forecast too."""
    if side.held:
        return min(side.spec.cap, len(side.present))
    if side.demand.kept is not None:
        return min(side.spec.cap, max(side.demand.kept, int(side.demand.inside > 0), side.spec.floor, len(side.seats)))
    outlook, service_s = side.demand.outlook, side.demand.service_s
    need = max(side.useful, side.wanted)
    if outlook is not None and service_s is not None and not side.asleep:
        need = max(need, math.ceil(outlook.far[-1] * service_s - 0.05))
    return min(side.spec.cap, max(need, side.spec.floor, len(side.seats)))


def _free(capacity: Capacity, members: Sequence[Side], board: Board) -> list[float]:
    """Devices by pool that are for the members: all but those that others have seats on."""
    own = {id(seat) for side in members for seat in side.seats}
    taken = {pool.name: 0.0 for pool in capacity.pools}
    for seat in board.seats:
        if id(seat) not in own:
            taken[seat.pool] = taken.get(seat.pool, 0.0) + seat.share
    return [max(0.0, pool.share - taken[pool.name]) for pool in capacity.pools]
