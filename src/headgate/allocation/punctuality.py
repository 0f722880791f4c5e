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

from headgate.allocation.arrays import Floats, Ints, Singles

_STEP = 0.01
_TOP = 0.99  # loads of the table end here
_NOTHING = 1e-7  # a part on time that makes no difference


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


@dataclass(frozen=True, slots=True)
class Lines:
    """Queues, one for each of R numbers of replicas: whose table is which (see `read`), requests per second of one
    replica [R], the mean seconds a request may wait [R], and how many may wait [R]."""

    tables: Singles
    which: Ints
    replica_rates: Singles
    slack_s: Singles
    room: Singles

    def pick(self, rows: Ints) -> Lines:
        """The queues at `rows`, each as often as it is there."""
        return Lines(
            self.tables,
            self.which.take(rows),
            self.replica_rates.take(rows),
            self.slack_s.take(rows),
            self.room.take(rows),
        )


@lru_cache(maxsize=4096)
def table(service: Service, most: int) -> Singles:
    """The part of requests on time in the long run, [replicas 0..most, load in steps of 1 % of what they can do].

    Rises with replicas, falls with load. Treat as read-only.
    """
    load = np.arange(0.0, _TOP + _STEP / 2, _STEP)
    chance = np.array([part for part, _ in service.slack])
    slack = np.maximum(np.array([seconds for _, seconds in service.slack]), 0.0)
    waits = _waits(service.slots, 1 << max(most - 1, 0).bit_length(), len(load))[1 : most + 1]
    decay = np.arange(1.0, most + 1.0)[:, None] * service.replica_rate * (1.0 - load) * 2.0 / (1.0 + service.variation)
    late = waits[:, :, None] * np.exp(-decay[:, :, None] * slack)
    steady = 1.0 - (late + (1.0 - late) * (slack <= 0.0)) @ chance
    on_time = np.zeros((most + 1, len(load)), np.float32)
    on_time[1:] = np.minimum.accumulate(steady, axis=1)
    return np.maximum.accumulate(on_time, axis=0, out=on_time)


def find_calm(tables: Singles) -> Singles:
    """The load up to which replicas do as well as can be, [T, replicas], in replicas with all their slots busy."""
    steps = np.count_nonzero(tables >= tables[:, -1:, :1] - _NOTHING, axis=2) - 1
    return np.multiply(np.arange(len(tables[0])), _STEP * steps, dtype=np.float32)


def read(tables: Singles, which: Ints, replicas: Ints, load: Singles) -> Singles:
    """The parts on time [Q, R] of `replicas` [R] in the long run under `load` [Q, R] (1: all they can do).

    `tables` [T, replicas, steps] are of `table`, `which` [R] says which is whose.
    """
    steps = tables.shape[2]
    place = load * (1.0 / _STEP)
    np.minimum(place, steps - 1 - 1e-5, out=place)
    whole = np.floor(place)
    place -= whole
    index: Ints = whole.astype(np.int64)
    index += (which * tables.shape[1] + replicas) * steps
    flat = tables.reshape(-1)
    low: Singles = flat.take(index)
    high: Singles = flat[1:].take(index)
    high -= low
    high *= place
    high += low
    return high


def pass_stretch(
    lines: Lines, rates: Singles, replicas: Ints, waiting: Singles, seconds: Singles
) -> tuple[Singles, Singles]:
    """The part of requests on time [Q, R] in a stretch of `seconds` [R], and how many wait at its end [Q, R].

    `rates` [Q, R] requests a second come to `replicas` [R] while `waiting` [Q or 1, R] wait already.
    A request is late while more wait than are served within its slack: until a queue has shrunk to that, or from when
    it has grown to that. Else it fares as in the long run, under no more load than can show within the stretch: a
    queue forgets in 1 / (capacity * (1 - sqrt(load))^2) seconds. Source: P. Morse, Queues, Inventories and
    Maintenance, 1958 (relaxation time). Why in place and in single precision: a good part of a turn is spent here.
    """
    able = lines.replica_rates * replicas.astype(np.float32)
    shows = np.maximum(0.0, 1.0 - 1.0 / np.sqrt(np.maximum(able * seconds, 1.0))) ** 2
    load = rates / np.maximum(able, 1e-9)
    np.minimum(load, shows, out=load)
    growth = rates - able
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
    np.maximum(punctual, 0.0, out=punctual)
    np.minimum(punctual, 1.0, out=punctual)
    punctual *= read(lines.tables, lines.which, replicas, load)
    return punctual, after


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
