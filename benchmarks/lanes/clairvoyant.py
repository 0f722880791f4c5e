"""Who knows each minute's arrivals beforehand and switches in no time: what lane F's policies are measured against.

A strong reference, not a proven bound: it plans minute by minute from true counts with a steady-state table.
"""

from __future__ import annotations

from benchmarks.lanes.headgate_policy import service
from benchmarks.lanes.lane_f import Lane
from benchmarks.lanes.traces import MINUTE_S
from headgate.allocation.arrays import Ints
from headgate.allocation.simulator.run import Rules, View
from headgate.allocation.targets import Option, Want, choose_targets


class Clairvoyant:
    """The best replicas for this minute's true counts."""

    decide_s = 5.0

    def __init__(self, lane: Lane) -> None:
        """`lane.counts` are the future."""
        self._lane = lane
        self._service = service()

    def rules(self) -> Rules:
        """No time to start, none to rest."""
        return Rules(budget=self._lane.capacity, start_s=0.0, decide_s=self.decide_s)

    def decide(self, view: View) -> Ints:
        """The replicas of each pipeline."""
        counts = self._lane.counts
        minute = min(int(view.now / MINUTE_S), len(counts) - 1)
        wants = [
            Want(
                service=self._service,
                near=(float(count) / MINUTE_S,) * 7,
                far=(float(count) / MINUTE_S,) * 7,
                near_s=1.0,
                far_s=1.0,
                options=(Option(now=self._lane.capacity),),  # whatever it takes now is there at once
                floor=1,
                cap=self._lane.capacity,
            )
            for count in counts[minute]
        ]
        return choose_targets(wants, [self._lane.capacity]).counts
