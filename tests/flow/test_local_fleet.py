"""Replicas as real processes of the fake engine, under a real reconcile loop."""

import asyncio
import os
import signal
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from headgate.allocation.state import Seat
from headgate.control.fleets.fleet import StartOrder
from headgate.control.fleets.local import LocalFleet
from headgate.control.journal import MemoryJournal
from headgate.control.node_plan import NodePlan, PlannedModel, PlannedPipeline
from headgate.control.reconcile import Reconciler
from headgate.control.settings import ControlSettings
from headgate.core.chance import SystemChance
from headgate.core.clock import SystemClock
from headgate.core.ids import Ids
from headgate.core.model import Version
from headgate.engines.engine import ModelOptions
from headgate.engines.fake import Fake
from headgate.engines.http import HttpClient
from headgate.workers.replica import prepare_host
from headgate.workers.settings import WorkerSettings
from tests.unit.control.world import make_capacity

CLOCK = SystemClock()
VERSION = Version(
    digest="sha256:fake", format="fake", task="generate", architecture="fake", parameters=None, context=64, bytes=0,
    path="",
)  # fmt: skip


class Site:
    """One state folder, in which nodes come and go."""

    def __init__(self, folder: Path, listen: Literal["unix", "loopback"]) -> None:
        self.folder = folder
        self.journal = MemoryJournal()
        self.client = HttpClient(CLOCK)
        self.engine = Fake(self.client)
        settings = WorkerSettings(grace_s=5.0, isolate="off", listen=listen)
        self.host = prepare_host(folder / "run", folder / "logs", CLOCK, settings)
        self.free: int | None = None
        self.chance = SystemChance()
        self.ids = Ids(CLOCK, self.chance)
        self.node: Reconciler | None = None

    def plan(self, floor: int = 1, **settings) -> NodePlan:
        model = PlannedModel(
            name="m",
            version=VERSION,
            options=ModelOptions(context=64, slots=2, settings=settings),
            engine=self.engine,
            share=0.5,
        )
        control = ControlSettings(tick_s=0.05, backoff_first_s=0.05, backoff_limit_s=0.2, block_after=3, ready_s=20)
        return NodePlan(
            capacity=make_capacity(2, memory=10**12),
            models={"m": model},
            pipelines=(PlannedPipeline(name="p", models=("m",), floor=floor),),
            settings=control,
        )

    async def open(self, plan: NodePlan) -> "Site":
        self.fleet = LocalFleet(
            host=self.host, engines={"fake": self.engine}, journal=self.journal, clock=CLOCK, chance=self.chance,
            free_memory=lambda: self.free,
        )  # fmt: skip
        self.tables = []
        self.node = Reconciler(
            node="n", plan=plan, fleet=self.fleet, journal=self.journal, clock=CLOCK, chance=self.chance,
            ids=self.ids, publish=self.tables.append,
        )  # fmt: skip
        await self.fleet.adopt(plan)
        self.task = asyncio.ensure_future(self.node.run())
        return self

    async def leave(self, *, stop_replicas: bool) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.fleet.close(stop_replicas=stop_replicas)

    async def until(self, happened, seconds: float = 20.0):
        async with asyncio.timeout(seconds):
            while not happened():
                await asyncio.sleep(0.01)

    def ready(self):
        return [one for one in self.fleet.members() if one.stage == "ready"]


@pytest.fixture(params=["unix", "loopback"])
async def site(request):
    with tempfile.TemporaryDirectory(prefix="hg", dir="/tmp") as folder:
        site = Site(Path(folder), request.param)
        yield site
        if site.node is not None:
            await site.leave(stop_replicas=True)
        await site.client.close()


async def test_a_floor_becomes_a_ready_process_with_rows_and_ends_with_the_node(site):
    await site.open(site.plan())
    await site.until(site.ready)
    member = site.ready()[0]
    assert member.address.startswith("unix:" if site.host.listen == "unix" else "http://127.0.0.1:")
    row = site.journal.replicas[member.id]
    assert row["state"] == "ready" and row["pid"] == member.pid and row["secret"] == ""
    assert os.path.exists(f"/proc/{member.pid}")
    await site.leave(stop_replicas=True)
    site.node = None
    assert not os.path.exists(f"/proc/{member.pid}")
    assert site.journal.replicas[member.id]["state"] == "stopped"


async def test_a_killed_process_is_replaced(site):
    await site.open(site.plan())
    await site.until(site.ready)
    first = site.ready()[0]
    os.kill(first.pid, signal.SIGKILL)
    await site.until(lambda: site.ready() and site.ready()[0].id != first.id)
    row = site.journal.replicas[first.id]
    assert row["state"] == "failed" and "SIGKILL" in row["reason"]


async def test_a_model_that_cannot_load_blocks_its_pipeline(site):
    site.free = 0
    await site.open(site.plan(memory_bytes=1000))
    await site.until(lambda: site.tables and site.tables[-1].pipelines["p"].blocked)
    assert "1000 bytes are missing" in site.tables[-1].pipelines["p"].blocked


async def test_replicas_outlive_a_node_and_are_adopted_by_the_next(site):
    await site.open(site.plan())
    await site.until(site.ready)
    first = site.ready()[0]
    await site.leave(stop_replicas=False)
    assert os.path.exists(f"/proc/{first.pid}")
    await site.open(site.plan())
    assert [(one.id, one.pid, one.epoch) for one in site.ready()] == [(first.id, first.pid, first.epoch)]
    assert site.ready()[0].secret == first.secret
    await asyncio.sleep(0.3)
    assert len(site.fleet.members()) == 1


async def test_one_that_died_while_no_node_was_there_is_settled_and_replaced(site):
    await site.open(site.plan())
    await site.until(site.ready)
    first = site.ready()[0]
    await site.leave(stop_replicas=False)
    os.kill(first.pid, signal.SIGKILL)
    os.waitpid(first.pid, 0)
    await site.open(site.plan())
    assert site.journal.replicas[first.id]["state"] == "failed"
    await site.until(site.ready)
    assert site.ready()[0].id != first.id


async def test_a_replica_of_an_unknown_epoch_is_ended(site):
    await site.open(site.plan())
    await site.until(site.ready)
    first = site.ready()[0]
    await site.leave(stop_replicas=False)
    site.journal.replicas[first.id]["epoch"] = first.epoch + 1
    await site.open(site.plan())
    await site.until(site.ready)
    assert site.ready()[0].id != first.id
    os.waitpid(first.pid, 0)


async def test_one_that_rests_is_another_nodes_warm_one_and_moves_to_other_cores(site):
    await site.open(site.plan(floor=0))
    await raise_one(site)
    await site.until(site.ready)
    first = site.ready()[0]
    await site.until(lambda: os.sched_getaffinity(first.pid) == {0})
    site.fleet.drain(first.id, "in the test")
    site.fleet.rest(first.id, "in the test")
    assert [one.stage for one in site.fleet.members()] == ["warm"] and site.fleet.members()[0].share_now == 0.0
    await site.leave(stop_replicas=False)
    site.journal.replicas[first.id]["state"] = "ready"  # the row that was to say so is lost
    await site.open(site.plan(floor=0))
    assert [(one.id, one.pid, one.stage) for one in site.fleet.members()] == [(first.id, first.pid, "warm")]
    site.fleet.wake(first.id, replace(seat_of(site), devices=(1,)))
    assert site.ready()[0].devices == (1,)
    cores = {frozenset(os.sched_getaffinity(int(thread))) for thread in os.listdir(f"/proc/{first.pid}/task")}
    assert cores == {frozenset({1})}, "every thread of it"
    await site.leave(stop_replicas=False)
    await site.open(site.plan(floor=0))
    assert [(one.stage, one.devices) for one in site.fleet.members()] == [("ready", (1,))]


async def test_a_wake_of_one_that_has_just_died_ends_in_its_burial(site):
    await site.open(site.plan(floor=0))
    await raise_one(site)
    await site.until(site.ready)
    first = site.ready()[0]
    site.fleet.drain(first.id, "in the test")
    site.fleet.rest(first.id, "in the test")
    os.kill(first.pid, signal.SIGKILL)
    site.fleet.wake(first.id, replace(seat_of(site), devices=(1,)))
    await site.until(lambda: not site.fleet.members())
    assert site.journal.replicas[first.id]["state"] == "failed"


async def test_warm_replicas_make_room_where_other_programs_have_taken_the_memory(site):
    await site.open(site.plan(floor=0))
    for _ in range(2):
        await raise_one(site, floor=0)
        await site.until(lambda: all(one.stage in ("ready", "warm") for one in site.fleet.members()))
        replica = site.ready()[0].id
        site.fleet.drain(replica, "in the test")
        site.fleet.rest(replica, "in the test")
    first, second = (one.id for one in site.fleet.members())
    site.fleet._free_memory = lambda: 500 * (3 - len(site.fleet.members()) + 1)
    await raise_one(site, floor=0, memory_bytes=1000)
    await site.until(site.ready)
    assert {one.id for one in site.fleet.members()} == {second, site.ready()[0].id}, "one was enough"
    assert site.journal.replicas[first]["reason"] == "its memory is needed"


def seat_of(site) -> Seat:
    model = site.plan().models["m"]
    return Seat(
        pipeline="p", configuration=model.key, pool="cpu", node="local", devices=(0,), share=0.5, memory_bytes=0
    )  # fmt: skip


async def raise_one(site, **settings) -> None:
    """Start a replica without the loop having asked for it; the loop is held so that it does not stop it again."""
    site.task.cancel()
    await asyncio.gather(site.task, return_exceptions=True)
    model = site.plan(**settings).models["m"]
    site.fleet.start(
        StartOrder(
            replica=site.ids.new(),
            pipeline="p",
            model=model,
            configuration=model.key,
            seat=replace(seat_of(site), configuration=model.key, memory_bytes=settings.get("memory_bytes", 0)),
            kind="cpu",
            epoch=1,
            ready_s=30.0,
        )
    )


async def test_a_stop_while_it_starts_leaves_nothing_behind(site):
    await site.open(site.plan(floor=0, load_s=30.0))
    await raise_one(site, floor=0, load_s=30.0)
    await site.until(lambda: site.fleet.members() and site.fleet.members()[0].pid)
    pid = site.fleet.members()[0].pid
    site.fleet.stop(site.fleet.members()[0].id, "changed its mind")
    await site.until(lambda: not site.fleet.members())
    assert not os.path.exists(f"/proc/{pid}")
