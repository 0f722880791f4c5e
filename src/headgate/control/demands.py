"""What all gateways together say of the load: reports in, one Demand per pipeline out.

Counts are summed since the last look; what is now (queued, in flight) is the newest word of each gateway.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from headgate.allocation.capacity import Capacity
from headgate.allocation.corrections import Corrections, Keys, Served
from headgate.allocation.demand import NOTHING, Demand, Seen, learn_demand
from headgate.allocation.outlooks import Outlooks
from headgate.allocation.pipeline import PipelineSpec
from headgate.allocation.rented import Rented
from headgate.allocation.settings import DEFAULTS, TargetSettings
from headgate.allocation.state import Running
from headgate.allocation.wants import plan_windows
from headgate.core.table import LoadReport, PipelineLoad

STALE_S = 5.0  # a gateway that says nothing for this long (20 reports) is not there any more


@dataclass(slots=True)
class _Sums:
    arrivals: int = 0
    settled: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    busy_s: float = 0.0
    late: int = 0

    def add(self, load: PipelineLoad) -> None:
        self.arrivals += load.arrivals
        self.settled += load.settled
        self.prompt_tokens += load.prompt_tokens
        self.output_tokens += load.output_tokens
        self.busy_s += load.busy_s
        self.late += load.late


@dataclass(slots=True)
class _Gateway:
    joined: float
    heard: float
    report: LoadReport | None = None


@dataclass(slots=True)
class DemandBook:
    """Reports of all gateways, and what is learned from them. Times are monotonic seconds."""

    demands: dict[str, Demand] = field(default_factory=dict[str, Demand])
    rented: Rented = field(default_factory=Rented)
    _gateways: dict[str, _Gateway] = field(default_factory=dict[str, _Gateway])
    _sums: dict[str, _Sums] = field(default_factory=dict[str, _Sums])
    _served: dict[str, Served] = field(default_factory=dict[str, Served])
    _corrections: Corrections = field(default_factory=Corrections)
    _outlooks: Outlooks = field(default_factory=Outlooks)
    _looked: float | None = None

    @property
    def gateways(self) -> int:
        """How many gateways are connected."""
        return len(self._gateways)

    @property
    def names(self) -> frozenset[str]:
        """The ids of the gateways that are connected."""
        return frozenset(self._gateways)

    def join(self, gateway: str, now: float) -> None:
        """A gateway has connected; until its first report nothing is known of what it has in flight."""
        self._gateways[gateway] = _Gateway(joined=now, heard=now)

    def leave(self, gateway: str) -> None:
        """A gateway is gone, and with it everything it had queued or in flight."""
        self._gateways.pop(gateway, None)

    def take(self, report: LoadReport, now: float) -> None:
        """Take a report of a gateway."""
        known = self._gateways.setdefault(report.gateway, _Gateway(joined=now, heard=now))
        known.heard, known.report = now, report
        for name, load in report.pipelines.items():
            self._sums.setdefault(name, _Sums()).add(load)
        for name, load in report.replicas.items():
            # A gateway knows how many requests it has on a replica itself; what others have there is their newest word.
            elsewhere = self.in_flight(name) - report.in_flight.get(name, 0)
            served = Served(
                settled=load.settled, busy_s=load.busy_s, together_s=load.together_s + elsewhere * load.busy_s
            )
            self._served[name] = self._served.get(name, Served()) + served

    def learn(
        self, pipelines: Mapping[str, PipelineSpec], capacity: Capacity, now: float,
        settings: TargetSettings = DEFAULTS, running: Iterable[Running] = (),
    ) -> dict[str, Demand]:  # fmt: skip
        """The demand of each of `pipelines` now, with its forecast, what of rented capacity is worth keeping, and what
        the replicas that are `running` teach of the speed of their configurations.

        What came since the last call is counted once.
        """
        for gateway in [name for name, one in self._gateways.items() if now - one.heard > STALE_S]:
            self.leave(gateway)
        elapsed_s = 0.0 if self._looked is None else now - self._looked
        self._looked = now
        before, self.demands = self.demands, {}
        seen = {name: self._seen(name, elapsed_s) for name in pipelines}
        self._outlooks.learn({name: float(one.arrivals) for name, one in seen.items()}, elapsed_s)
        learned = {name: learn_demand(before.get(name, NOTHING), seen[name]) for name in pipelines}
        self.rented.learn(pipelines, learned, seen, capacity, settings)
        self._corrections.learn(pipelines, self._take_served(running), elapsed_s)
        for name, spec in pipelines.items():
            self.demands[name] = replace(
                learned[name],
                outlook=self._outlooks.look(name, plan_windows(spec, learned[name])),
                kept=self.rented.look(name),
                corrections=self._corrections.look(name),
            )
        self._sums.clear()
        return self.demands

    def in_flight(self, replica: str) -> int:
        """Requests on a replica, over all gateways, as they last said."""
        return sum(one.report.in_flight.get(replica, 0) for one in self._gateways.values() if one.report)

    def is_busy(self, replica: str) -> bool:
        """Whether a gateway has requests on the replica."""
        return self.in_flight(replica) > 0

    def is_drained(self, replica: str, table_number: int) -> bool:
        """Whether every gateway has said, knowing a table from `table_number` on, that nothing is in flight there.

        Why the number: a report that was on its way when the replica began to drain proves nothing.
        """
        return all(
            one.report is not None
            and one.report.table_number >= table_number
            and not one.report.in_flight.get(replica, 0)
            for one in self._gateways.values()
        )

    def suspects(self) -> set[str]:
        """Replicas that a gateway has seen fail."""
        return {name for one in self._gateways.values() if one.report for name in one.report.suspects}

    def _take_served(self, running: Iterable[Running]) -> dict[Keys, Served]:
        """What was served since the last call, by pipeline and configuration."""
        if not self._served:
            return {}
        served: dict[Keys, Served] = {}
        for one in running:
            if one.id in self._served:
                keys = (one.pipeline, one.configuration)
                served[keys] = served.get(keys, Served()) + self._served[one.id]
        self._served.clear()
        return served

    def _seen(self, name: str, elapsed_s: float) -> Seen:
        loads = [
            one.report.pipelines[name] for one in self._gateways.values() if one.report and name in one.report.pipelines
        ]
        sums = self._sums.get(name, _Sums())
        return Seen(
            elapsed_s=elapsed_s,
            arrivals=sums.arrivals,
            settled=sums.settled,
            queued=sum(load.queued for load in loads),
            in_flight=sum(load.in_flight for load in loads),
            prompt_tokens=sums.prompt_tokens,
            output_tokens=sums.output_tokens,
            busy_s=sums.busy_s,
            late=sums.late,
            oldest_wait_s=max((load.oldest_wait_s for load in loads), default=0.0),
        )
