"""Pipelines whose capacity is paid for by use: how many replicas of each are worth keeping alive.

Moved on once a second, like Outlooks, and at once where somebody waits. Holds what is between two decisions; a decision
sees the number in its Demand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from headgate.allocation.arrays import Floats
from headgate.allocation.capacity import Capacity
from headgate.allocation.demand import Demand, Seen
from headgate.allocation.error_budget import ErrorBudget
from headgate.allocation.keep_alive import KeepAlive, Work
from headgate.allocation.pipeline import PipelineSpec
from headgate.allocation.settings import DEFAULTS, TargetSettings
from headgate.allocation.wants import LEARN_S, TURN_S, build_service


@dataclass(slots=True)
class _Counted:
    came: int = 0
    late: int = 0


class Rented:
    """The replicas to keep of each pipeline all of whose pools are elastic and have a price."""

    def __init__(self) -> None:
        self.budget = ErrorBudget()
        self._keep_alive = KeepAlive(0)
        self._places: dict[str, int] = {}
        self._counted: dict[str, _Counted] = {}
        self._elapsed_s = 0.0
        self._kept: dict[str, int] = {}

    def learn(
        self, pipelines: Mapping[str, PipelineSpec], demands: Mapping[str, Demand], seen: Mapping[str, Seen],
        capacity: Capacity, settings: TargetSettings = DEFAULTS,
    ) -> None:  # fmt: skip
        """What was `seen` of all pipelines since the last time, and what is known of them."""
        prices = {pool.name: pool.price_per_hour or 0.0 for pool in capacity.pools if pool.rented}
        rented = [spec for spec in pipelines.values() if all(one.pool in prices for one in spec.configurations)]
        self._counted = {spec.name: self._counted.get(spec.name, _Counted()) for spec in rented}
        for name, counted in self._counted.items():
            counted.came += seen[name].arrivals
            counted.late += seen[name].late
        self._elapsed_s += max((one.elapsed_s for one in seen.values()), default=0.0)
        waiting = self._elapsed_s > 0.0 and any(demands[spec.name].queued for spec in rented)
        if waiting or self._elapsed_s >= LEARN_S:
            self._choose(rented, demands, prices, settings)
            self._counted, self._elapsed_s = {}, 0.0

    def look(self, name: str) -> int | None:
        """Replicas worth keeping alive; None where they are not rented, or nothing is known yet."""
        return self._kept.get(name)

    def _choose(
        self, rented: list[PipelineSpec], demands: Mapping[str, Demand], prices: Mapping[str, float],
        settings: TargetSettings,
    ) -> None:  # fmt: skip
        names = [spec.name for spec in rented]
        if names != list(self._places):
            self._keep_alive.carry(np.array([self._places.get(name, -1) for name in names], np.int64))
            self._places = {name: place for place, name in enumerate(names)}
        if not rented:
            self._kept = {}
            return
        counted = [self._counted[name] for name in names]
        came = np.array([one.came for one in counted], np.float64)
        self.budget.learn(
            came, np.array([one.late for one in counted], np.float64), self._elapsed_s, settings.slo_minutes
        )
        told = [_tell(spec, demands[spec.name]) for spec in rented]
        inside = np.array([demands[name].inside for name in names], np.float64)
        service_s, ahead_s, wait_s, slots = np.array(told).T
        self._keep_alive.learn(
            Work(came=came, inside=inside, service_s=service_s, ahead_s=ahead_s, wait_s=wait_s, slots=slots),
            self._elapsed_s,
        )
        costs: Floats = np.array([settings.money * _price(spec, prices) for spec in rented])
        kept = self._keep_alive.choose(costs * self.budget.factor)
        self._kept = dict(zip(names, kept.tolist(), strict=True))


def _price(spec: PipelineSpec, prices: Mapping[str, float]) -> float:
    """Money for an hour of the cheapest replica."""
    return min(prices[one.pool] * one.share for one in spec.configurations)


def _tell(spec: PipelineSpec, demand: Demand) -> tuple[float, float, float, float]:
    """Seconds of a request, until a new replica serves, and that one may wait; slots of a replica."""
    best = spec.configurations[0]
    service = build_service(spec, best, demand, 1)
    seconds = demand.service_s or service.mean_s
    return seconds, best.wake_s + TURN_S, max(service.slack_s, 0.0), float(service.slots)
