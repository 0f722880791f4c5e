"""How many replicas each pipeline should have: where one more unit of capacity keeps most requests on time.

The rule is equal marginal utility per unit, not shares in proportion to load. A pipeline's value of n replicas is the
part of its requests that will be on time, expected over the forecast's quantiles, in two stretches of time: `near`,
until a replica started now can serve (more replicas help nothing there, fewer hurt at once), and `far`, after it, with
the queue that `near` leaves. So what a switch costs is in the value itself. Pure; seats nobody.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from operator import attrgetter

import numpy as np

from headgate.allocation import punctuality
from headgate.allocation.arrays import Floats, Ints
from headgate.allocation.forecast import WEIGHTS
from headgate.allocation.problem import Problem, Solution
from headgate.allocation.punctuality import Lines, Service
from headgate.allocation.settings import DEFAULTS, TargetSettings
from headgate.allocation.solver import solve

_BLOCK = 96  # pipelines at once: what is in hand stays in the processor's cache
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
    `pressing` requests have a value of their own beside the part on time: they would wait too long. `rank` is the
    class, 0 first.
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
    owner, told = _tell_options(wants)
    loads, values = _curves(wants, owner, told, settings)
    return Problem(
        capacity=np.array(capacity, float),
        pipeline=owner,
        pool=told[0].astype(np.int64),
        units=told[1],
        speed=told[2],
        cost=told[3],
        now=told[4].astype(np.int64),
        start_cost=told[5],
        stop_cost=told[6],
        loads=loads,
        values=values,
        floor=np.array([want.floor for want in wants]),
        cap=np.array([want.cap for want in wants]),
        rank=np.array([want.rank for want in wants]),
    )


def value_curves(wants: Sequence[Want], settings: TargetSettings = DEFAULTS) -> tuple[Floats, Floats]:
    """Capacities in replicas [I, G] and the value of each [I, G]."""
    return _curves(wants, *_tell_options(wants), settings)


def _curves(wants: Sequence[Want], owner: Ints, told: Floats, settings: TargetSettings) -> tuple[Floats, Floats]:
    """See value_curves; `owner` and `told` are of _tell_options. In here arrays are [G, I]: pipelines come last."""
    most = max(want.cap for want in wants)
    replicas = np.repeat(np.arange(most + 1)[:, None], len(wants), axis=1)
    there = np.bincount(owner, told[4] * told[2], len(wants))
    near_s, far_s = np.array([want.near_s for want in wants]), np.array([want.far_s for want in wants])
    near_rates, far_rates = _quantiles([want.near for want in wants]), _quantiles([want.far for want in wants])
    served = there * np.array([want.service.slots for want in wants])
    waiting = np.maximum(np.array([want.inside for want in wants]) - served, 0.0)
    lines = _lines(wants, most)
    # Until a new one serves, no more than those that are there count: only so many are reckoned with.
    most_now = np.minimum(there.astype(np.int64), most)
    rows = np.repeat(np.arange(len(wants)), most_now + 1)
    first = np.cumsum(most_now + 1) - most_now - 1
    few, theirs = (np.arange(len(rows)) - first[rows])[None, :], _pick(lines, rows)
    rates_now, rows_s = near_rates[:, rows], near_s[rows]
    near, left = punctuality.pass_stretch(theirs, rates_now, few, waiting[None, None, rows], rows_s)
    near = _expected(theirs, near, rates_now, few, rows_s, settings)
    at_once = first + np.minimum(replicas, most_now)
    near, far = near[0].take(at_once), np.empty(replicas.shape)
    for begin in range(0, len(wants), _BLOCK):
        some = slice(begin, begin + _BLOCK)
        mine, rates, number = _pick(lines, some), far_rates[:, some], replicas[:, some]
        waiting = left[:, 0].take(at_once[:, some], axis=1)
        part, _ = punctuality.pass_stretch(mine, rates, number, waiting, far_s[some])
        far[:, some] = _expected(mine, part, rates, number, far_s[some], settings)
    far[0] = np.maximum(far[0], np.array([want.woken for want in wants]) * far[min(1, most)])
    on_time = _fairly((near * near_s + far * far_s) / (near_s + far_s), settings.alpha)
    middle = len(WEIGHTS) // 2
    busy = np.maximum(near_rates[middle], far_rates[middle]) / lines.replica_rates
    pressing = _pressed(wants, replicas) * (settings.urgent_s / (near_s + far_s))
    values = on_time + pressing + settings.spare * _eased(busy, replicas)
    values *= np.array([want.weight for want in wants])
    values = np.maximum.accumulate(values, axis=0)
    return np.ascontiguousarray(replicas.T, np.float64), np.ascontiguousarray(values.T)


def _quantiles(rates: Sequence[tuple[float, ...]]) -> Floats:
    """Requests per second by quantile [Q, I]."""
    told = np.fromiter(chain.from_iterable(rates), np.float64).reshape(len(rates), -1)
    return np.ascontiguousarray(told.T)


_OPTION = attrgetter("pool", "units", "speed", "cost", "now", "start_cost", "stop_cost")


def _tell_options(wants: Sequence[Want]) -> tuple[Ints, Floats]:
    """Whose the options are [K], and what _OPTION tells of them [7, K]."""
    told = map(_OPTION, chain.from_iterable(want.options for want in wants))
    columns = np.fromiter(chain.from_iterable(told), np.float64).reshape(-1, 7).T
    return np.repeat(np.arange(len(wants)), [len(want.options) for want in wants]), np.ascontiguousarray(columns)


def _fairly(on_time: Floats, alpha: float) -> Floats:
    """Utility of a part on time, from 0 to 1. Source: alpha-fairness (J. Mo and J. Walrand, 2000)."""
    if alpha == 0.0:
        return on_time
    if alpha == 1.0:
        return np.log1p(on_time / _LEAST) / np.log1p(1.0 / _LEAST)
    low, high = _LEAST ** (1.0 - alpha), (1.0 + _LEAST) ** (1.0 - alpha)
    return ((on_time + _LEAST) ** (1.0 - alpha) - low) / (high - low)


def _eased(busy: Floats, replicas: Ints) -> Floats:
    """How far replicas beyond the `busy` [I] ease a load, [replicas, I] from 0 to 1: n of them beside n and those."""
    return np.where(busy > 0.0, replicas / np.maximum(replicas + busy, 1e-9), 0.0)


def _pressed(wants: Sequence[Want], replicas: Ints) -> Floats:
    """What replicas are worth to those who press, [replicas, I]: up to a slot for each, and less by the way.

    Why beside the part on time: whoever comes behind a queue is late too, also after the stretches looked at, so no
    capacity is kept where nobody is. Where there is too little for all queues, these values share it in their
    proportion. Source: proportional fairness (F. Kelly, 1997).
    """
    need = np.array([want.pressing / want.service.slots for want in wants])
    return need * np.log2(1.0 + np.minimum(replicas / np.maximum(need, 1e-9), 1.0))


def _lines(wants: Sequence[Want], most: int) -> Lines:
    # Why by identity first: a Service's hash takes as long as all the rest here.
    services = {id(want.service): want.service for want in wants}
    kinds = {service: kind for kind, service in enumerate(dict.fromkeys(services.values()))}
    kind_of = {one: kinds[service] for one, service in services.items()}
    which = np.array([kind_of[id(want.service)] for want in wants])
    told = np.array([(service.replica_rate, service.slack_s) for service in kinds])[which]
    return Lines(
        tables=_stack(tuple(kinds), most),
        which=which,
        replica_rates=told[:, 0].copy(),
        slack_s=told[:, 1].copy(),
        room=np.array([want.room for want in wants]),
    )


@lru_cache(maxsize=16)
def _stack(services: tuple[Service, ...], most: int) -> Floats:
    """The services' tables as one array. Treat as read-only. Why kept: services seldom change from turn to turn."""
    return np.stack([punctuality.table(service, most) for service in services])


def _pick(lines: Lines, rows: Ints | slice) -> Lines:
    """The queues at `rows`, each as often as it is there."""
    return Lines(
        tables=lines.tables,
        which=lines.which[rows],
        replica_rates=lines.replica_rates[rows],
        slack_s=lines.slack_s[rows],
        room=lines.room[rows],
    )


def _expected(
    lines: Lines, on_time: Floats, rates: Floats, replicas: Ints, seconds: Floats, settings: TargetSettings
) -> Floats:
    """Expected part on time [N, I] of a stretch in which anything comes; 0 where nothing is expected to.

    Writes into `on_time` [Q, N, I].
    """
    # A late answer is worth something too; without it whoever is overloaded most would be given up for the others.
    answered = replicas * lines.replica_rates * (1.0 / np.maximum(rates, 1e-9))[:, None]
    np.minimum(answered, 1.0, out=answered)
    answered *= settings.answered
    on_time *= 1.0 - settings.answered
    on_time += answered
    # Why: a replica is worth something only if somebody comes. Else pipelines that sleep would hold one each.
    on_time *= ((1.0 - np.exp(-rates * seconds)) * np.array(WEIGHTS)[:, None])[:, None]
    return on_time.sum(axis=0)
