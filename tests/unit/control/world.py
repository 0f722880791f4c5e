"""A node without processes: manual clock, fake fleet, gateways that the test plays."""

import asyncio
from dataclasses import replace

from headgate.allocation.capacity import Capacity, Node, Pool
from headgate.control.fleets.fake import FakeFleet
from headgate.control.journal import MemoryJournal
from headgate.control.node_plan import NodePlan, PlannedModel, PlannedPipeline
from headgate.control.reconcile import Reconciler
from headgate.control.settings import ControlSettings
from headgate.core.chance import SeededChance
from headgate.core.clock import ManualClock
from headgate.core.ids import Ids
from headgate.core.model import Version
from headgate.core.table import LoadReport, PipelineLoad, ReplicaLoad
from headgate.engines.engine import Memory, ModelOptions
from tests.simulation.house import check_budget


class StubEngine:
    """An engine as far as control looks at it."""

    name = "stub"
    leaves_walls = False

    def __init__(self, memory: int = 10**6) -> None:
        self.memory = memory
        self.refuses: Exception | None = None

    def check(self, version, options) -> None:
        if self.refuses:
            raise self.refuses

    def estimate_memory(self, version, options) -> Memory:
        return Memory(weights=self.memory, kv_cache=0, compute=0, overhead=0, device=3 * self.memory)


ENGINE = StubEngine()


def make_model(
    name: str, *, share: float = 1.0, slots: int = 4, digest: str = "sha256:1", engine=ENGINE
) -> PlannedModel:
    version = Version(
        digest=digest,
        format="fake",
        task="generate",
        architecture="fake",
        parameters=None,
        context=64,
        bytes=0,
        path="",
    )
    options = ModelOptions(context=64, slots=slots)
    return PlannedModel(name=name, version=version, options=options, engine=engine, share=share)


def make_capacity(cores: int = 2, memory: int = 10**9) -> Capacity:
    node = Node(name="local", devices=tuple(range(cores)), share=float(cores), memory_bytes=memory)
    return Capacity(pools=(Pool(name="cpu", kind="cpu", nodes=(node,)),))


def make_plan(cores: int = 2, settings: ControlSettings | None = None, share: float = 1.0, **pipelines) -> NodePlan:
    """A plan with one model for each pipeline; `pipelines` are their settings by name. Nobody rests unless told to."""
    models = {name: make_model(name, share=told.pop("share", share)) for name, told in pipelines.items()}
    made = tuple(
        PlannedPipeline(name=name, models=(name,), **{"warm_s": 0.0, **told}) for name, told in pipelines.items()
    )
    return NodePlan(
        capacity=make_capacity(cores), models=models, pipelines=made, settings=settings or ControlSettings()
    )


class World:
    """One node under test. `work` is what the one gateway says: (queued, in flight) by pipeline."""

    def __init__(self, plan: NodePlan, *, load_s: float = 0.1, journal: MemoryJournal | None = None) -> None:
        self.clock = ManualClock()
        self.fleet = FakeFleet(self.clock, load_s=load_s)
        self.journal = journal or MemoryJournal()
        self.tables = []
        chance = SeededChance(1)
        self.reconciler = Reconciler(
            node="n1", plan=plan, fleet=self.fleet, journal=self.journal, clock=self.clock, chance=chance,
            ids=Ids(self.clock, chance), publish=self.tables.append,
        )  # fmt: skip
        self.work: dict[str, tuple[int, int]] = {}
        self.in_flight: dict[str, int] = {}
        self.served: dict[str, ReplicaLoad] = {}  # by pipeline: what each of its replicas completes in a report
        self.suspects: tuple[str, ...] = ()
        self.gateway_listens = True
        self.task: asyncio.Task | None = None

    async def __aenter__(self):
        self.reconciler.join("g1")
        self.report()
        self.task = asyncio.ensure_future(self.reconciler.run())
        await self.settle()
        return self

    async def __aexit__(self, *error):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.fleet.close(stop_replicas=True)

    def report(self, number: int | None = None) -> None:
        loads = {
            name: PipelineLoad(queued=queued, in_flight=flying, oldest_wait_s=0.1 if queued else 0.0, arrivals=queued)
            for name, (queued, flying) in self.work.items()
        }
        self.reconciler.take_load(
            LoadReport(
                gateway="g1",
                pid=1,
                table_number=self.reconciler.table.number if number is None else number,
                pipelines=loads,
                in_flight=dict(self.in_flight),
                suspects=self.suspects,
                replicas={name: load for pipeline, load in self.served.items() for name in self.ready(pipeline)},
            )
        )

    async def run(self, seconds: float, step: float = 0.05) -> None:
        """Let time pass; the gateway reports at each step and the budget is checked."""
        for _ in range(round(seconds / step)):
            if self.gateway_listens:
                self.report()
            await self.settle()
            await self.clock.advance(step)
            await self.settle()
            check_budget(self.reconciler.plan.capacity, [one.running(0, 0.0) for one in self.fleet.members()])

    async def settle(self) -> None:
        """Let every task run until it waits for time."""
        for _ in range(20):
            await asyncio.sleep(0)

    def ready(self, pipeline: str) -> list[str]:
        return [one.id for one in self.fleet.members() if one.pipeline == pipeline and one.stage == "ready"]

    def did(self, pipeline: str | None = None) -> list[str]:
        return [what for _, what, name in self.fleet.history if pipeline in (None, name)]

    @property
    def plan(self) -> NodePlan:
        return self.reconciler.plan

    def change(self, name: str, **more) -> NodePlan:
        """The plan with one pipeline's settings changed."""
        return replace(
            self.plan, pipelines=tuple(replace(one, **more) if one.name == name else one for one in self.plan.pipelines)
        )
