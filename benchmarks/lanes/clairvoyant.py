"""Who knows each minute's arrivals beforehand and switches in no time: what lane F's policies are measured against.

A strong reference, not a proven bound: it plans each minute from its true count and the queues, every 5 s.
"""

from __future__ import annotations

from benchmarks.lanes.headgate_policy import service
from benchmarks.lanes.lane_f import SERVICE, Lane
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
                near_s=MINUTE_S,
                far_s=MINUTE_S,
                options=(Option(now=self._lane.capacity),),  # whatever it takes now is there at once
                inside=float(held),
                room=SERVICE.queue,
                floor=1,
                cap=self._lane.capacity,
            )
            for count, held in zip(counts[minute], view.queued + view.in_flight, strict=True)
        ]
        return choose_targets(wants, [self._lane.capacity]).counts
