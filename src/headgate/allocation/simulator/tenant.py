"""Capacity that is paid for by use, in the simulator: the product's own `Rented` is told what gateways would tell it.

Needs the slack of every request: whether one was late is found when it is settled, as in the product. Knows nothing of
solvers: says how many replicas are worth keeping.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headgate.allocation.arrays import Floats, Ints
from headgate.allocation.capacity import Capacity, Pool
from headgate.allocation.demand import NOTHING, Demand, Seen, learn_demand
from headgate.allocation.pipeline import Configuration, PipelineSpec
from headgate.allocation.profile import Profile
from headgate.allocation.punctuality import Service
from headgate.allocation.rented import Rented
from headgate.allocation.settings import TargetSettings
from headgate.allocation.simulator import kernel
from headgate.allocation.simulator.run import View
from headgate.allocation.simulator.world import World
from headgate.allocation.wants import LEARN_S, TURN_S

LOOK_S = LEARN_S
"""How often it has to be asked."""

_POOL, _KEY = "rented", "all"


class Tenant:
    """Keeps replicas of each pipeline while they are likely enough to be called, at a price that follows the budget."""

    def __init__(
        self, services: Sequence[Service], shares: Sequence[float], slack: Sequence[Floats], start_s: float,
        price_per_hour: float, settings: TargetSettings,
    ) -> None:  # fmt: skip
        """By pipeline: how a replica serves, its devices at `price_per_hour` each, and the slack of every request."""
        self.rented = Rented()
        self._settings = settings
        self._capacity = Capacity(
            pools=(Pool(name=_POOL, kind="cpu", nodes=(), price_per_hour=price_per_hour, elastic=True),)
        )
        specs = [
            _describe(f"{number:05}", service, share, start_s)
            for number, (service, share) in enumerate(zip(services, shares, strict=True))
        ]
        self._specs = {spec.name: spec for spec in specs}
        self._demands: dict[str, Demand] = dict.fromkeys(self._specs, NOTHING)
        self._slow = [service.slow[: service.slots] for service in services]
        self._slack = np.concatenate(slack)
        self._open: Ints = np.zeros(0, np.int64)  # requests that came and are not settled
        self._came: Ints | None = None  # the next request of each pipeline at the last look
        self._before = 0.0

    def keep(self, view: View) -> Ints:
        """The replicas of each pipeline that are worth keeping alive."""
        elapsed_s, self._before = view.now - self._before, view.now
        late = self._find_late(view.world)
        at_once = np.rint(view.in_flight / np.maximum(view.serving, 1)).astype(np.int64)
        seen: dict[str, Seen] = {}
        for number, name in enumerate(self._specs):
            slow = self._slow[number]
            held = min(max(int(at_once[number]), 1), len(slow))
            seen[name] = Seen(
                elapsed_s=elapsed_s,
                arrivals=int(view.seen[number, kernel.ARRIVED]),
                settled=int(view.seen[number, kernel.SETTLED]),
                queued=int(view.queued[number]),
                in_flight=int(view.in_flight[number]),
                # Why so: the world counts work alone on a replica, and others are there with it.
                busy_s=float(view.seen[number, kernel.BUSY_S]) * slow[held - 1],
                late=int(late[number]),
            )
        self._demands = {name: learn_demand(self._demands[name], one) for name, one in seen.items()}
        self.rented.learn(self._specs, self._demands, seen, self._capacity, self._settings)
        return np.array([self.rented.look(name) or 0 for name in self._specs], np.int64)

    def _find_late(self, world: World) -> Ints:
        """Requests by pipeline that were settled since the last look and were late, those dropped included."""
        following = world.lines.following
        before = world.first if self._came is None else self._came
        more = np.flatnonzero(following > before)
        came: list[Ints] = [np.arange(before[number], following[number], dtype=np.int64) for number in more]
        self._came = following.copy()
        there = np.concatenate([self._open, *came])
        latency = world.latency[there]
        settled = ~np.isnan(latency)
        self._open = there[~settled]
        late = there[settled & ~(latency - world.work[there] <= self._slack[there] + 1e-9)]
        return np.bincount(np.searchsorted(world.last, late, side="right"), minlength=len(world.last))


def _describe(name: str, service: Service, share: float, start_s: float) -> PipelineSpec:
    """A pipeline as headgate.yaml and its profile would tell it."""
    # Why no first token: slack is what is left beside it.
    slow = tuple(enumerate(service.slow[: service.slots], 1))
    profile = Profile(service_s=service.mean_s, first_token_s=0.0, slow=slow)
    way = Configuration(
        key=_KEY,
        pool=_POOL,
        share=share,
        slots=service.slots,
        memory_bytes=0,
        wake_s=start_s + LOOK_S - TURN_S,  # the product looks each TURN_S, and it is seen here after LOOK_S
        profile=profile,
    )
    return PipelineSpec(name=name, configurations=(way,), first_token_s=service.slack_s)
