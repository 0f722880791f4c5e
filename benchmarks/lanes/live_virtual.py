"""The product's own reconcile loop and dispatcher on virtual time: the live lane's cases without processes, and without
the noise of a machine that does other things too. A request is done the sooner the fewer share its replica. HTTP,
tokens on the wire and the time that a decision takes are left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from benchmarks.lanes.live_cases import CORES, LATE_AFTER_S, PATIENCE_S, Case
from headgate.allocation.capacity import Capacity, Node, Pool
from headgate.control.fleets.fake import FakeFleet
from headgate.control.journal import MemoryJournal
from headgate.control.node_plan import NodePlan, PlannedModel, PlannedPipeline
from headgate.control.reconcile import Reconciler
from headgate.core.chance import SeededChance
from headgate.core.clock import ManualClock, SystemClock
from headgate.core.errors import HeadgateError
from headgate.core.ids import Ids
from headgate.core.model import Version
from headgate.core.table import RoutingTable
from headgate.core.units import parse_bytes
from headgate.engines.engine import ModelOptions
from headgate.engines.fake import Fake
from headgate.engines.http import HttpClient
from headgate.evaluation.burst import Arrival
from headgate.evaluation.samples import Sample
from headgate.evaluation.static_split import Speed, Split
from headgate.serving.dispatch import Dispatcher

STEP_S = 0.01
_REPORT_STEPS, _SWEEP_STEPS = 25, 5  # as a gateway does: a report each 250 ms, a look at deadlines each 50 ms
_MEMORY_BYTES = 2**40  # where the case has no limit
REPLICA_BYTES = 44 * 2**20
_BATCHING = 0.6  # k requests at once take k^0.6 times as long as one alone: about what small models do on a core
_FIRST_PART = 0.25  # of a request's service is over when its first token comes


class VirtualHouse:
    """A node and a gateway with nothing between them. Moves unless it is given a `split` to hold."""

    def __init__(self, case: Case, *, split: Split | None = None, load_s: float = 0.2) -> None:
        self.clock = ManualClock()
        self.fleet = FakeFleet(self.clock, load_s=load_s)
        self.samples: list[Sample] = []
        self.looks = self.over = 0
        chance = SeededChance(1)
        plan = _plan(case, split)
        self._node = plan.capacity.pools[0].nodes[0]
        self.dispatcher = Dispatcher(self.clock, wake=self._report_soon)
        self.reconciler = Reconciler(
            node="virtual",
            plan=plan,
            fleet=self.fleet,
            journal=MemoryJournal(),
            clock=self.clock,
            chance=chance,
            ids=Ids(self.clock, chance),
            publish=self._publish,
        )

    async def run(self, arrivals: Sequence[Arrival], speeds: Mapping[str, Speed]) -> list[Sample]:
        """What became of each arrival; replicas that are always there are there from the beginning."""
        self.reconciler.join("virtual")
        looping = asyncio.ensure_future(self.reconciler.run())
        asked: set[asyncio.Task[None]] = set()
        coming = list(arrivals)[::-1]
        try:
            await self._pass_time(2 * round(self.fleet.load_s / STEP_S))
            began = self.clock.monotonic()
            while coming or not all(task.done() for task in asked):
                while coming and began + coming[-1].at_s <= self.clock.monotonic():
                    arrival = coming.pop()
                    asked.add(asyncio.ensure_future(self._ask(arrival, began, speeds[arrival.pipeline])))
                await self._pass_time(1)
        finally:
            looping.cancel()
            await asyncio.gather(looping, return_exceptions=True)
            await self.fleet.close(stop_replicas=True)
        return self.samples

    async def _pass_time(self, steps: int) -> None:
        for _ in range(steps):
            await self.clock.advance(STEP_S)
            number = round(self.clock.monotonic() / STEP_S)
            if number % _SWEEP_STEPS == 0:
                self.dispatcher.sweep()
            if number % _REPORT_STEPS == 0:
                self._report()
            held = sum(one.share_now for one in self.fleet.members())
            memory_bytes = sum(one.memory_bytes for one in self.fleet.members())
            self.looks += 1
            self.over += held > self._node.share + 1e-6 or memory_bytes > self._node.memory_bytes

    async def _ask(self, arrival: Arrival, began: float, speed: Speed) -> None:
        lane = self.dispatcher.lane(arrival.pipeline)
        lane.arrivals += 1
        start_s = self.clock.monotonic() - began
        first_s, failure = None, None
        try:
            lease = await self.dispatcher.lease(lane, self.clock.monotonic() + PATIENCE_S)
            at_once = next((seat.in_flight for seat in lane.seats if seat.route.id == lease.route.id), speed.slots)
            service_s = speed.slots / speed.requests_per_s * (at_once / speed.slots) ** _BATCHING
            await self.clock.sleep(_FIRST_PART * service_s)
            first_s = self.clock.monotonic() - began
            lane.late += first_s - start_s > LATE_AFTER_S
            await self.clock.sleep((1.0 - _FIRST_PART) * service_s)
            lease.release(completed=True)
        except HeadgateError as error:
            failure = error.code
        lane.settled += 1
        end_s = self.clock.monotonic() - began
        self.samples.append(
            Sample(
                number=arrival.number,
                pipeline=arrival.pipeline,
                start_s=start_s,
                first_s=first_s,
                end_s=end_s,
                failure=failure,
            )
        )

    def _publish(self, table: RoutingTable) -> None:
        asyncio.get_running_loop().call_soon(self.dispatcher.apply, table)

    def _report_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self._report)

    def _report(self) -> None:
        self.reconciler.take_load(self.dispatcher.report("virtual", 1))


def _plan(case: Case, split: Split | None) -> NodePlan:
    memory_bytes = parse_bytes(case.memory) if case.memory else _MEMORY_BYTES
    node = Node(name="local", devices=tuple(range(CORES)), share=float(CORES), memory_bytes=memory_bytes)
    capacity = Capacity(pools=(Pool(name="cpu", kind="cpu", nodes=(node,)),))
    engine = Fake(HttpClient(SystemClock()))
    models: dict[str, PlannedModel] = {}
    for name, model in case.models.items():
        version = Version(
            digest=f"sha256:{name}",
            format="fake",
            task="generate",
            architecture="fake",
            parameters=None,
            context=4096,
            bytes=0,
            path="",
        )
        options = ModelOptions(context=4096, slots=model["slots"], settings={"memory_bytes": REPLICA_BYTES})
        models[name] = PlannedModel(name=name, version=version, options=options, engine=engine, share=model["cores"])
    pipelines = tuple(
        PlannedPipeline(
            name=name,
            models=(name,),
            floor=split[name] if split else 0,
            cap=split[name] if split else case.places,
            queue=4096,
            idle_s=4.0,
            timeout_s=PATIENCE_S,
            first_token_s=LATE_AFTER_S,
        )
        for name in case.models
    )
    return NodePlan(capacity=capacity, models=models, pipelines=pipelines)
