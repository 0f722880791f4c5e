"""How many replicas each pipeline should have: where one more unit of capacity keeps most requests on time.

The rule is equal marginal utility per unit, not shares in proportion to load. A pipeline's value of n replicas is the
part of its requests that will be on time, expected over the forecast's quantiles, in two stretches of time: `near`,
until a replica started now can serve (more replicas help nothing there, fewer hurt at once), and `far`, after it, with
the queue that `near` leaves. So what a switch costs is in the value itself. Pure; seats nobody.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise
from operator import attrgetter

import numpy as np

from headgate.allocation import punctuality
from headgate.allocation.arrays import Floats, Ints, Singles
from headgate.allocation.forecast import WEIGHTS
from headgate.allocation.problem import Problem, Solution
from headgate.allocation.punctuality import Lines, Service
from headgate.allocation.settings import DEFAULTS, TargetSettings
from headgate.allocation.solver import solve

_BLOCK = 1024  # rows at once: what is in hand stays in the processor's cache
_LONGEST_DRAIN_S = 60.0  # that is looked ahead for the sake of a queue
_LEAST = 0.01  # part on time that counts as none where fairness takes logarithms or powers


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One way to run a pipeline's replicas.

    `pool` is an index, `units` what one replica takes of it, `speed` how many replicas of the pipeline's Service it is
    worth, `now` how many there are, `cost`, `start_cost` and `stop_cost` are utility per replica.
    """

    pool: int = 0
    units: float = 1.0
    speed: float = 1.0
    now: int = 0
    cost: float = 0.0
    start_cost: float = 0.0
    stop_cost: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """One pipeline as targets are chosen for it.

    `near` and `far` are requests per second at forecast.PROBABILITIES in the two stretches, which last `near_s` and
    `far_s` seconds; `inside` requests are waiting or being served now, and at most `room` may wait. `woken` is the
    part of what one replica keeps on time that none keeps too, because one is there in time when it is asked for.
    `pressing` requests have a value of their own beside the part on time: they would wait too long. `kept` replicas are
    worth keeping alive, whatever the stretches say of them (0: nothing is known). `rank` is the class, 0 first.
    """

    service: Service
    near: tuple[float, ...]
    far: tuple[float, ...]
    near_s: float
    far_s: float
    options: tuple[Option, ...] = (Option(),)
    inside: float = 0.0
    room: float = math.inf
    woken: float = 0.0
    pressing: float = 0.0
    kept: float = 0.0
    weight: float = 1.0
    floor: int = 0
    cap: int = 16
    rank: int = 0


def choose_targets(
    wants: Sequence[Want],
    capacity: Sequence[float],
    prices: Floats | None = None,
    settings: TargetSettings = DEFAULTS,
) -> Solution:
    """Replicas by option, in the order of `wants` and their options, with a bound of what is possible.

    `capacity` is units by pool; `prices` those of the last solution.
    """
    return solve(build_problem(wants, capacity, settings), prices=prices)


def build_problem(wants: Sequence[Want], capacity: Sequence[float], settings: TargetSettings = DEFAULTS) -> Problem:
    """What the solver is asked: see choose_targets."""
    told = _Told.of(wants)
    loads, values = _curves(wants, told, settings)
    return Problem(
        capacity=np.array(capacity, float),
        pipeline=told.owner,
        pool=told.options[0].astype(np.int64),
        units=told.options[1],
        speed=told.options[2],
        cost=told.options[3],
        now=told.options[4].astype(np.int64),
        start_cost=told.options[5],
        stop_cost=told.options[6],
        loads=loads,
        values=values,
        floor=told.bounds[0],
        cap=told.bounds[1],
        rank=told.bounds[2],
    )


def value_curves(wants: Sequence[Want], settings: TargetSettings = DEFAULTS) -> tuple[Floats, Floats]:
    """Capacities in replicas [I, G] and the value of each [I, G]."""
    return _curves(wants, _Told.of(wants), settings)


_OPTION = attrgetter("pool", "units", "speed", "cost", "now", "start_cost", "stop_cost")
_WANT = attrgetter("near_s", "far_s", "inside", "room", "woken", "pressing", "kept", "weight", "floor", "cap", "rank")


@dataclass(frozen=True, slots=True)
class _Told:
    """What wants say, as arrays: whose options are [K] and what _OPTION tells of them [7, K]; the numbers of _WANT, but
    for the last three [8, I], and those three [3, I]; requests per second by quantile in both stretches [2, Q, I]."""

    owner: Ints
    options: Floats
    numbers: Floats
    bounds: Ints
    rates: Singles

    @classmethod
    def of(cls, wants: Sequence[Want]) -> _Told:
        """What these say."""
        owner = np.repeat(np.arange(len(wants)), [len(want.options) for want in wants])
        options = _columns(map(_OPTION, chain.from_iterable(want.options for want in wants)), 7)
        each = _columns(map(_WANT, wants), 11)
        rates = chain((want.near for want in wants), (want.far for want in wants))
        by_want = _numbers(rates).reshape(2, len(wants), -1)
        quantiles = np.ascontiguousarray(by_want.transpose(0, 2, 1), np.float32)
        return cls(owner, options, each[:8], each[8:].astype(np.int64), quantiles)


def _columns(rows: Iterable[tuple[float, ...]], width: int) -> Floats:
    """Rows of `width` numbers as columns [width, rows]."""
    return np.ascontiguousarray(_numbers(rows).reshape(-1, width).T)


def _numbers(rows: Iterable[tuple[float, ...]]) -> Floats:
    """Rows of numbers, one after the other. Why packed: it takes half as long as to make an array of them."""
    told = [*chain.from_iterable(rows)]
    return np.frombuffer(struct.pack(f"{len(told)}d", *told))


@dataclass(frozen=True, slots=True)
class _Rows:
    """None, one, two ... up to `most` [I] replicas of each pipeline, one after the other: which pipeline's they are [R]
    and how many [R]. The first are at `first` [I]."""

    owner: Ints
    replicas: Ints
    first: Ints
    most: Ints

    @classmethod
    def upto(cls, most: Ints) -> _Rows:
        """All numbers from 0 to `most` [I]."""
        first = np.cumsum(most + 1) - most - 1
        owner = np.repeat(np.arange(len(most)), most + 1)
        return cls(owner, np.arange(len(owner)) - first[owner], first, most)

    def at(self, replicas: Ints) -> Ints:
        """Where so many `replicas` [..., I] of each pipeline are found, or the most there are."""
        return self.first + np.minimum(replicas, self.most)


def _curves(wants: Sequence[Want], told: _Told, settings: TargetSettings) -> tuple[Floats, Floats]:
    """See value_curves. In here arrays are [G, I]: pipelines come last."""
    near_s, far_s, inside, room, woken, pressing, kept, weight = told.numbers
    near_rates, far_rates = told.rates
    most = int(told.bounds[1].max())
    replicas = np.arange(most + 1)[:, None]
    lines, slots, calm = _lines(wants, room, most)
    there = np.bincount(told.owner, told.options[4] * told.options[2], len(wants))
    waiting = np.maximum(inside - there * slots, 0.0).astype(np.float32)
    # Why: else a queue that takes longer to work off than the stretch lasts is hopeless, and nothing is given to it.
    # Who presses has a value for that already.
    drain_s = np.minimum(waiting / lines.replica_rates, _LONGEST_DRAIN_S)
    far_s = far_s + np.where(pressing > 0.0, 0.0, drain_s)
    # Until a new one serves, no more than those that are there count: only so many are reckoned with.
    rows = _Rows.upto(np.minimum(there.astype(np.int64), most))
    near, left = _pass(lines, rows, near_rates, waiting[None, rows.owner], near_s, settings)
    at_once = rows.at(replicas)
    near = near.take(at_once)
    # Nor is it reckoned what more replicas bring where all are on time.
    waits = left.max(axis=0).take(at_once) > replicas * (lines.replica_rates * lines.slack_s)
    late = waits | (calm < far_rates.max(axis=0) / lines.replica_rates)
    rows = _Rows.upto(np.minimum(np.count_nonzero(late, axis=0), most))
    left = left.take(at_once[rows.replicas, rows.owner], axis=1)
    far, _ = _pass(lines, rows, far_rates, left, far_s, settings)
    far = far.take(rows.at(replicas))
    far[0] = np.maximum(far[0], woken * far[min(1, most)])
    ahead_s = near_s + far_s
    values = _fairly(near * (near_s / ahead_s) + far * (far_s / ahead_s), settings.alpha)
    if pressing.any():
        values += _pressed(pressing / slots, replicas) * (settings.urgent_s / ahead_s)
    if kept.any():
        values += _pressed(kept, replicas)
    middle = len(WEIGHTS) // 2
    values += settings.spare * _eased(np.maximum(near_rates[middle], far_rates[middle]) / lines.replica_rates, replicas)
    values *= weight
    # Why row by row: twice as quick as `accumulate` over rows.
    for fewer, more in pairwise(values):
        np.maximum(fewer, more, out=more)
    loads = np.repeat(np.arange(most + 1.0)[None, :], len(wants), axis=0)
    return loads, np.ascontiguousarray(values.T)


def _fairly(on_time: Floats, alpha: float) -> Floats:
    """Utility of a part on time, from 0 to 1. Source: alpha-fairness (J. Mo and J. Walrand, 2000)."""
    if alpha == 0.0:
        return on_time
    if alpha == 1.0:
        return np.log1p(on_time / _LEAST) / np.log1p(1.0 / _LEAST)
    low, high = _LEAST ** (1.0 - alpha), (1.0 + _LEAST) ** (1.0 - alpha)
    return ((on_time + _LEAST) ** (1.0 - alpha) - low) / (high - low)


def _eased(busy: Singles, replicas: Ints) -> Floats:
    """How far `replicas` [N, 1] beyond the `busy` [I] ease a load, [N, I] from 0 to 1: n of them beside n and those."""
    return np.where(busy > 0.0, replicas / np.maximum(replicas + busy, 1e-9), 0.0)


def _pressed(need: Floats, replicas: Ints) -> Floats:
    """What `replicas` [N, 1] are worth to those who press, [N, I]: up to the `need` [I], and less by the way.

    Why beside the part on time: whoever comes behind a queue is late too, also after the stretches looked at, so no
    capacity is kept where nobody is. Where there is too little for all queues, these values share it in their
    proportion. Source: proportional fairness (F. Kelly, 1997).
    """
    return need * np.log2(1.0 + np.minimum(replicas / np.maximum(need, 1e-9), 1.0))


def _lines(wants: Sequence[Want], room: Floats, most: int) -> tuple[Lines, Floats, Singles]:
    """The wants' queues, the slots of a replica [I], and find_calm of them [most + 1, I]."""
    # Why by identity first: a Service's hash takes as long as all the rest here.
    services = {id(want.service): want.service for want in wants}
    kinds: dict[Service, int] = {}
    kind_of = {one: kinds.setdefault(service, len(kinds)) for one, service in services.items()}
    which = np.array([kind_of[id(want.service)] for want in wants])
    # Why a power of two: the most that is of use changes with the load, and tables must not be made anew for it.
    tables, calm, told = _stack(tuple(kinds), 1 << max(most - 1, 0).bit_length())
    rates, slack_s, slots = told[:, which]
    lines = Lines(tables, which, rates.astype(np.float32), slack_s.astype(np.float32), room.astype(np.float32))
    return lines, slots, calm[: most + 1, which]


@lru_cache(maxsize=16)
def _stack(services: tuple[Service, ...], most: int) -> tuple[Singles, Singles, Floats]:
    """The T services' tables as one array, find_calm of them [most + 1, T], and what each does [3, T]: requests per
    second of a replica, mean slack in seconds, slots.

    Treat as read-only. Why kept: services seldom change from turn to turn.
    """
    tables = np.stack([punctuality.table(service, most) for service in services])
    told = np.array([(service.replica_rate, service.slack_s, service.slots) for service in services])
    return tables, np.ascontiguousarray(punctuality.find_calm(tables).T), np.ascontiguousarray(told.T)


def _pass(
    lines: Lines, rows: _Rows, rates: Singles, waiting: Singles, seconds: Floats, settings: TargetSettings
) -> tuple[Singles, Singles]:
    """Expected part on time [R] of a stretch in which anything comes, 0 where nothing is expected to, and who waits
    at its end [Q, R]; `rates` [Q, I], `waiting` [Q or 1, R], `seconds` [I]."""
    # Why: a replica is worth something only if somebody comes. Else pipelines that sleep would hold one each.
    comes = ((1.0 - np.exp(-rates * seconds)) * np.array(WEIGHTS)[:, None]).astype(np.float32)
    lasts = seconds.astype(np.float32)
    expected, left = np.empty(len(rows.owner), np.float32), np.empty((len(rates), len(rows.owner)), np.float32)
    for begin in range(0, len(rows.owner), _BLOCK):
        some = slice(begin, begin + _BLOCK)
        owner, replicas = rows.owner[some], rows.replicas[some]
        mine, each = lines.pick(owner), rates.take(owner, axis=1)
        on_time, left[:, some] = punctuality.pass_stretch(mine, each, replicas, waiting[:, some], lasts.take(owner))
        # A late answer is worth something too; without it whoever is overloaded most would be given up for the others.
        np.maximum(each, 1e-9, out=each)
        answered = np.divide(mine.replica_rates * replicas.astype(np.float32), each, out=each)
        np.minimum(answered, 1.0, out=answered)
        answered *= settings.answered
        on_time *= 1.0 - settings.answered
        on_time += answered
        on_time *= comes.take(owner, axis=1)
        on_time.sum(axis=0, out=expected[some])
    return expected, left
