"""How many requests are on time in a stretch of time, by replicas, load and what waits already.

A table has the steady state below saturation: Erlang's C formula for the chance to wait, an exponential tail for how
long, with the correction of Allen and Cunneen for service times that are not exponential (L. Kleinrock, Queueing
Systems II, 1976; A. O. Allen, Probability, Statistics and Queueing Theory, 1990). What a stretch is too short for
the steady state to come, and a queue that is there or grows, are reckoned as a fluid. Knows nothing of forecasts,
prices or pools.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from headgate.allocation.arrays import Floats, Ints

_STEP = 0.01
_TOP = 0.99  # loads of the table end here


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """How replicas of one configuration serve (times in seconds).

    `mean_s` is a request's mean time in a slot of an otherwise idle replica, `variation` the squared coefficient of
    variation of that time; a replica works on `slots` requests at once, and with k at once each takes `slow[k - 1]`
    times as long. `slack` has (probability, seconds): how long a request may wait and still be on time.
    """

    mean_s: float
    variation: float = 1.0
    slots: int = 1
    slow: tuple[float, ...] = (1.0,)
    slack: tuple[tuple[float, float], ...] = ((1.0, 0.5),)

    @property
    def replica_rate(self) -> float:
        """Requests per second of one replica with all its slots busy."""
        return self.slots / (self.mean_s * self.slow[min(self.slots, len(self.slow)) - 1])

    @property
    def slack_s(self) -> float:
        """How long a request may wait and still be on time, on the average."""
        return sum(part * max(seconds, 0.0) for part, seconds in self.slack)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """The queues of I pipelines: whose table is which (see `read`), requests per second of one replica [I], the mean
    seconds a request may wait [I], and how many may wait [I]."""

    tables: Floats
    which: Ints
    replica_rates: Floats
    slack_s: Floats
    room: Floats


@lru_cache(maxsize=4096)
def table(service: Service, most: int) -> Floats:
    """The part of requests on time in the long run, [replicas 0..most, load in steps of 1 % of what they can do].

    Rises with replicas, falls with load. Treat as read-only.
    """
    load = np.arange(0.0, _TOP + _STEP / 2, _STEP)
    chance = np.array([part for part, _ in service.slack])
    slack = np.maximum(np.array([seconds for _, seconds in service.slack]), 0.0)
    on_time = np.zeros((most + 1, len(load)))
    for replicas in range(1, most + 1):
        on_time[replicas] = np.minimum.accumulate(_steady(service, replicas, load, chance, slack))
    return np.maximum.accumulate(on_time, axis=0)


def read(tables: Floats, which: Ints, replicas: Ints, load: Floats) -> Floats:
    """The parts on time [Q, N, I] of `replicas` [N, I] in the long run under `load` [Q, N, I] (1: all they can do).

    `tables` [T, replicas, steps] are of `table`, `which` [I] says which is whose.
    """
    steps = tables.shape[2]
    place = load / _STEP
    np.minimum(place, steps - 1 - 1e-9, out=place)
    index: Ints = place.astype(np.int64)
    place -= index
    index += (which * tables.shape[1] + replicas) * steps
    flat = tables.reshape(-1)
    low, high = flat.take(index), flat[1:].take(index)
    high -= low
    high *= place
    high += low
    return high


def pass_stretch(
    lines: Lines, rates: Floats, replicas: Ints, waiting: Floats, seconds: Floats
) -> tuple[Floats, Floats]:
    """The part of requests on time [Q, N, I] in a stretch of `seconds` [I], and how many wait at its end [Q, N, I].

    `rates` [Q, I] requests a second come to `replicas` [N, I] while `waiting` [Q or 1, N or 1, I] wait already.
    A request is late while more wait than are served within its slack: until a queue has shrunk to that, or from when
    it has grown to that. Else it fares as in the long run, under no more load than can show within the stretch: a
    queue forgets in 1 / (capacity * (1 - sqrt(load))^2) seconds. Source: P. Morse, Queues, Inventories and
    Maintenance, 1958 (relaxation time). Why in place and pipelines last: half of a turn's time is spent here.
    """
    asked, able = rates[:, None], replicas * lines.replica_rates
    shows = np.maximum(0.0, 1.0 - 1.0 / np.sqrt(np.maximum(able * seconds, 1.0))) ** 2
    load = asked / np.maximum(able, 1e-9)
    np.minimum(load, shows, out=load)
    growth = asked - able
    after = growth * seconds
    after += waiting
    np.maximum(after, 0.0, out=after)
    np.minimum(after, lines.room, out=after)
    # While it grows, the part of the stretch until it is too long; while it shrinks, the part from when it is not.
    punctual = able * lines.slack_s - waiting
    shrinks = growth <= -1e-9
    np.abs(growth, out=growth)
    np.maximum(growth, 1e-9, out=growth)
    growth *= seconds
    punctual = np.divide(punctual, growth, out=growth)
    punctual += shrinks
    np.clip(punctual, 0.0, 1.0, out=punctual)
    punctual *= read(lines.tables, lines.which, replicas, load)
    return punctual, after


def _steady(service: Service, replicas: int, load: Floats, chance: Floats, slack: Floats) -> Floats:
    """On time below saturation; `load` [L] is a part of the full rate."""
    waits = _waits(service.slots, 1 << (replicas - 1).bit_length(), len(load))[replicas]
    decay = replicas * service.replica_rate * (1.0 - load) * 2.0 / (1.0 + service.variation)
    late = waits[:, None] * np.exp(-decay[:, None] * slack[None, :])
    return 1.0 - (late + (1.0 - late) * (slack <= 0.0)[None, :]) @ chance


@lru_cache(maxsize=256)
def _waits(slots: int, most: int, steps: int) -> Floats:
    """The chance to wait [replicas 0..most, load in `steps` of 1 %]: Erlang's C formula, from B by its recursion.

    Why for all at once: the same whatever a request takes, and replicas of many slots are thousands of servers.
    """
    load = np.arange(steps) * _STEP
    busy = load * slots * np.arange(most + 1)[:, None]
    blocked = np.ones_like(busy)
    for server in range(1, most * slots + 1):
        able = -(-server // slots)  # replicas that have so many servers
        rest = blocked[able:] * busy[able:]
        blocked[able:] = rest / (server + rest)
    return blocked / (1.0 - load * (1.0 - blocked))
