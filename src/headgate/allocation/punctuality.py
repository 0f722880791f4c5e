"""How many requests are on time, by replicas and load: the table that a pipeline's utility is read from.

Steady state below saturation: Erlang's C formula for the chance to wait, an exponential tail for how long, with the
correction of Allen and Cunneen for service times that are not exponential (L. Kleinrock, Queueing Systems II, 1976;
A. O. Allen, Probability, Statistics and Queueing Theory, 1990). At and past saturation: how long the queue takes to
grow too long, as a part of the time looked at. Knows nothing of forecasts, prices or pools.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from headgate.allocation.arrays import Floats, Ints

TOP = 3.0  # loads past three times what the replicas can do are as late as it gets
_STEP = 0.01
_NEARLY = 0.97  # from here on the queue's growth tells more than its steady state, which takes long to come
_LEAST_SLACK_S = 1e-3
_SATURATED = 0.17  # on time when load is just what the replicas can do (simulated: 0.06 with one, 0.25 with six)
SPAN_S = 60.0  # how long an overload is looked at: its queue is there for longer than the stretch that is decided on


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


@lru_cache(maxsize=4096)
def table(service: Service, most: int) -> Floats:
    """The part of requests on time, [replicas 0..most, load per replica in steps of 1 % of its rate up to TOP].

    Rises with replicas, falls with load. Treat as read-only.
    """
    load = np.arange(0.0, TOP + _STEP / 2, _STEP)
    chance = np.array([part for part, _ in service.slack])
    slack = np.maximum(np.array([seconds for _, seconds in service.slack]), 0.0)
    on_time = np.zeros((most + 1, len(load)))
    below = load[load < 1.0 - _STEP / 2]
    for replicas in range(1, most + 1):
        steady = _steady(service, replicas, below, chance, slack)
        row = np.concatenate([steady, _growing(load[len(below) :], chance, slack)])
        nearly = int(_NEARLY / _STEP)
        # Between nearly saturated and saturated: a straight way from the one formula to the other.
        row[nearly : len(below) + 5] = np.linspace(row[nearly], row[len(below) + 5], len(below) + 5 - nearly)
        on_time[replicas] = np.minimum.accumulate(row)
    return np.maximum.accumulate(on_time, axis=0)


def read(tables: Floats, which: Ints, rates: Floats, replica_rates: Floats) -> Floats:
    """The parts on time [I, scenarios, replicas] at the arrival rates `rates` [I, scenarios] (requests per second).

    `tables` [T, replicas, steps] are of `table`, `which` [I] says which is whose, `replica_rates` [I] are requests per
    second of one replica.
    """
    most = tables.shape[1] - 1
    replicas = np.arange(1, most + 1, dtype=np.int64)
    place: Floats = rates[:, :, None] / (replica_rates[:, None, None] * replicas) / _STEP
    last = tables.shape[2] - 1
    place = np.minimum(place, last - 1e-9)
    index: Ints = place.astype(np.int64)
    part = place - index
    flat = tables.reshape(-1)
    first: Ints = (which[:, None, None] * (most + 1) + replicas) * (last + 1) + index
    low = flat[first]
    on_time = low + (flat[first + 1] - low) * part
    return np.concatenate([np.zeros((*rates.shape, 1)), on_time], axis=2)


def _steady(service: Service, replicas: int, load: Floats, chance: Floats, slack: Floats) -> Floats:
    """On time below saturation; `load` [L] is a part of the full rate."""
    servers = replicas * service.slots
    busy = load * servers
    blocked = np.ones_like(load)  # Erlang B, by its recursion
    for server in range(1, servers + 1):
        blocked = busy * blocked / (server + busy * blocked)
    waits = blocked / (1.0 - load * (1.0 - blocked))
    decay = replicas * service.replica_rate * (1.0 - load) * 2.0 / (1.0 + service.variation)
    late = waits[:, None] * np.exp(-decay[:, None] * slack[None, :])
    return 1.0 - (late + (1.0 - late) * (slack <= 0.0)[None, :]) @ chance


def _growing(load: Floats, chance: Floats, slack: Floats) -> Floats:
    """On time at saturation and past it: until the queue is as long as the slack."""
    seconds = float(chance @ slack) / np.maximum(load - 1.0, _LEAST_SLACK_S)
    return np.minimum(float(chance @ (slack > 0.0)) * _SATURATED, seconds / SPAN_S)
