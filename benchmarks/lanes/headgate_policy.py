"""Headgate's own allocation in lane F: the simulator's pilot with one setting for all capacities."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.lanes.lane_f import SERVICE, Lane
from headgate.allocation.arrays import Ints
from headgate.allocation.punctuality import Service
from headgate.allocation.settings import DEFAULTS, TargetSettings
from headgate.allocation.simulator.pilot import Charge, Pilot
from headgate.allocation.simulator.run import View

SLO_S, ROUTE_S = 0.72, 0.0046
_BASE, _SCALE, _SPREAD = 0.0793016, 0.0685808, 0.422471


def service() -> Service:
    """Lane F's service times as a profile would tell them: mean, variation, and the slack to the SLO."""
    grow = math.exp(_SPREAD**2 / 2)
    mean = _BASE + _SCALE * grow
    deviation = _SCALE * grow * math.sqrt(math.exp(_SPREAD**2) - 1)
    z = np.linspace(-2.7, 2.7, 19)
    chance = np.exp(-z * z / 2) / np.exp(-z * z / 2).sum()
    slack = SLO_S - ROUTE_S - _BASE - _SCALE * np.exp(_SPREAD * z)
    return Service(
        mean_s=mean,
        variation=(deviation / mean) ** 2,
        slack=tuple((float(part), float(seconds)) for part, seconds in zip(chance, slack, strict=True)),
    )


class Headgate:
    """The pilot, beginning with equal shares: nothing is known yet."""

    def __init__(self, lane: Lane, settings: TargetSettings = DEFAULTS) -> None:
        """`lane` gives the rules and the number of pipelines; its future is not looked at."""
        self.decide_s = settings.decide_s
        self._capacity = lane.capacity
        charge = Charge(service=service(), room=SERVICE.queue)
        self.pilot = Pilot([charge] * lane.jobs, lane.rules(self.decide_s), settings)

    def decide(self, view: View) -> Ints:
        """The replicas of each pipeline."""
        counts = self.pilot.decide(view)
        if view.now > 0.0:
            return counts
        share, rest = divmod(self._capacity, len(counts))
        return np.array([share + (number < rest) for number in range(len(counts))])


class HeadgateBegun(Headgate):
    """The same with what equal share has by the lane's rules: its first replicas serve from the start."""

    def __init__(self, lane: Lane) -> None:
        """See Headgate."""
        super().__init__(lane)
        self.first = (lane.capacity // lane.jobs,) * lane.jobs
