"""One pipeline while a decision is being made: what it has, what its load needs, the seats it has got so far."""

from __future__ import annotations

import math
from collections.abc import Iterable

from headgate.allocation.demand import NOTHING, Demand
from headgate.allocation.pipeline import Configuration, PipelineSpec
from headgate.allocation.state import History, Running, Seat, State

_SLACK = 0.05  # of a replica: a load that is so little above a whole number asks for no further one
_DWELL_WAKES = 5.0  # what a pipeline just got is its own for so many of its wake times
_DWELL_LEAST_S = 1.0
_DWELL_SPRINGS_S = 0.25  # the same where it is back in a moment
_STARVES_DWELLS = 5.0
_SOON_GONE_S = 1.0  # seconds of a request, after which whoever serves it is gone soon
_LATELY_S = 60.0


class Side:
    """Mutable, for one decision. Replicas are listed as they should be kept: ready ones first, then the busiest."""

    def __init__(self, spec: PipelineSpec, state: State, running: Iterable[Running], *, fleeting: bool = False) -> None:
        """`running` are its own replicas; `fleeting` is what `is_fleeting` says."""
        self.spec = spec
        self.name = spec.name
        self.configuration: Configuration = spec.configurations[0]
        """The best way to run it."""
        self.demand: Demand = state.demands.get(spec.name, NOTHING)
        self.history: History = state.histories.get(spec.name, History())
        held = state.held.get(spec.name, {})
        self.startable = [one for one in spec.configurations if one.key not in held]
        """The configurations of which new replicas may be started, best first."""
        self.held = not self.startable
        order = {one.key: number for number, one in enumerate(spec.configurations)}
        loaded = [one for one in running if one.stage == "warm" and one.configuration in order]
        self.resting = sorted(loaded, key=lambda one: (one.rested_s, one.id))
        """Warm replicas, who rests for the shortest time first."""
        mine = [one for one in running if one.stage not in ("draining", "warm")]
        mine.sort(key=lambda one: (one.stage != "ready", -one.in_flight, order.get(one.configuration, 0), one.id))
        self.present = [one for one in mine if one.configuration in order]
        self.outdated = [one for one in mine if one.configuration not in order]
        self.seats: list[Seat] = []
        self.protected = 0
        self.stuck = False
        is_loaded = bool(mine or loaded) and all(one.stage != "starting" for one in mine)
        self.springs = fleeting and spec.warm_s > 0.0 and is_loaded
        """Whether it loses nothing by giving way: it stays loaded, and is back in a moment."""
        dwell_s = _DWELL_SPRINGS_S if self.springs else max(_DWELL_LEAST_S, _DWELL_WAKES * self.configuration.wake_s)
        raised_at = self.history.raised_at
        self.dwelling = bool(self.present) and raised_at is not None and state.at < raised_at + dwell_s
        self.starving = not self.present and self.demand.oldest_wait_s > _STARVES_DWELLS * dwell_s
        """Whether it has waited for so long that others had their turn several times."""
        inside, steady = self.demand.inside, self.demand.steady
        self.asleep = not inside and self.demand.idle_for_s >= spec.idle_s
        """Whether nothing was asked for so long that the past says nothing any more."""
        self.offered = 0.0 if self.asleep else max(float(inside), steady)
        """Requests at once that the pipeline has to serve."""
        need = math.ceil(self.offered / self.configuration.slots - _SLACK)
        self.wanted = min(spec.cap, max(spec.floor, need, 1 if inside else 0))
        """Replicas that serve the offered load with a slot for each request."""
        self.useful = 0 if self.asleep else min(spec.cap, math.ceil(steady - _SLACK))
        """Replicas beyond which another one would find nothing to do: one for each request at once."""

    @property
    def unseated(self) -> list[Running]:
        """Replicas that it has and that have no seat yet."""
        taken = {seat.replica for seat in self.seats}
        return [one for one in self.present if one.id not in taken]

    @property
    def short(self) -> int:
        """Replicas of its floor that are not seated yet."""
        return max(0, self.spec.floor - len(self.seats) - self.protected)


def is_fleeting(state: State) -> bool:
    """Whether a device that somebody gives up can be had back in a moment.

    One replica of every configuration must find memory beside all others, so that whoever gives way stays loaded; and
    nobody's requests may take so long that whoever has the device then is slow to leave.
    """
    if any((one.service_s or 0.0) > _SOON_GONE_S for one in state.demands.values() if one.idle_for_s < _LATELY_S):
        return False
    asked: dict[str, int] = {}
    for spec in state.pipelines:
        for one in spec.configurations:
            asked[one.pool] = asked.get(one.pool, 0) + one.memory_bytes
    there = {pool.name: sum(node.memory_bytes for node in pool.nodes) for pool in state.capacity.pools}
    return all(need <= there.get(pool, 0) for pool, need in asked.items())
