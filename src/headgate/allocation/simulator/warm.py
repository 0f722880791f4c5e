"""Replicas that gave their devices up and stay loaded, in the simulator: which ones, in the memory that is left.

The same rule as the product's (`resting.py`), by pipeline instead of by seat. Changes nothing itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headgate.allocation.arrays import Ints
from headgate.allocation.resting import find_worth
from headgate.allocation.simulator import kernel
from headgate.allocation.simulator.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Warm:
    """What it takes to stay loaded, and what that is worth.

    Of `memory_bytes` each replica takes `replica_bytes` [pipeline], serving or resting. One rests for `rest_s`
    [pipeline] at most, which may be 0, and serves `wake_s` after it was called back, where a new one takes `start_s`.
    With those that serve a pipeline has no more than `cap` [pipeline]; `weight` [pipeline] is as everywhere.
    """

    memory_bytes: int
    replica_bytes: tuple[int, ...]
    rest_s: tuple[float, ...]
    weight: tuple[float, ...]
    cap: tuple[int, ...]
    start_s: float
    wake_s: float

    @property
    def most(self) -> int:
        """How many replicas the memory holds at most."""
        return self.memory_bytes // max(1, min(self.replica_bytes))

    def find_excess(self, world: World) -> Ints:
        """Places of resting replicas that must go: they rested long enough, or their memory is needed."""
        resting = np.flatnonzero(world.places.stage == kernel.IDLE)
        if not len(resting):
            return resting
        there = world.count(kernel.STARTING, kernel.SERVING, kernel.DRAINING)
        free = self.memory_bytes - int(there @ np.array(self.replica_bytes))
        room = (np.array(self.cap) - there).tolist()
        excess: list[int] = []
        worths = {place: self._find_worth(world, place) for place in resting.tolist()}
        for place in sorted(worths, key=lambda place: (-worths[place], place)):
            pipeline = int(world.owner[place])
            if worths[place] > 0.0 and room[pipeline] > 0 and self.replica_bytes[pipeline] <= free:
                room[pipeline] -= 1
                free -= self.replica_bytes[pipeline]
            else:
                excess.append(place)
        return np.array(excess, np.int64)

    def _find_worth(self, world: World, place: int) -> float:
        pipeline = int(world.owner[place])
        left_s = float(world.idle_until[place]) - world.now
        if left_s <= 0.0:
            return 0.0
        rested_s = self.rest_s[pipeline] - left_s
        return find_worth(self.weight[pipeline], self.start_s, rested_s, self.replica_bytes[pipeline])
