"""Queues, slots and tables: who gets the next free slot, and that none is ever lost."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from headgate.core.clock import ManualClock
from headgate.core.errors import DeadlineExceeded, ModelNotFound, Overloaded, Unavailable
from headgate.core.secret import Secret
from headgate.core.table import PipelineRoute, ReplicaLoad, ReplicaRoute, RoutingTable
from headgate.serving.dispatch import SUSPECT_S, Dispatcher, Lease


def pipeline(name: str = "p", **more: object) -> PipelineRoute:
    route = PipelineRoute(
        name=name, model=name, version="v", engine="fake", task="generate", context=100, queue=4, weight=1.0,
        first_token_s=1.0, per_token_s=0.1, timeout_s=60.0, created=1,
    )  # fmt: skip
    return replace(route, **more)  # type: ignore[arg-type]


def replica(id: str, **more: object) -> ReplicaRoute:
    route = ReplicaRoute(
        id=id, pipeline="p", version="v", engine="fake", address="unix:/x", secret=Secret("s"), epoch=1, slots=1,
        device="cpu:0", pool="cpu", share=1.0, state="ready",
    )  # fmt: skip
    return replace(route, **more)  # type: ignore[arg-type]


class World:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.woken = 0
        self.dispatcher = Dispatcher(self.clock, self.wake)
        self.number = 0

    def wake(self) -> None:
        self.woken += 1

    def table(self, *replicas: ReplicaRoute, pipelines: tuple[PipelineRoute, ...] = (pipeline(),)) -> None:
        self.number += 1
        self.dispatcher.apply(
            RoutingTable(
                node="n",
                number=self.number,
                pipelines={one.name: one for one in pipelines},
                replicas={one.id: one for one in replicas},
            )
        )

    async def lease(
        self, deadline: float = 60.0, exclude: frozenset[str] = frozenset(), version: str | None = None
    ) -> Lease:
        return await self.dispatcher.lease(self.dispatcher.lane("p"), deadline, exclude, version)

    def wait(self, **more: object) -> asyncio.Task[Lease]:
        return asyncio.get_running_loop().create_task(self.lease(**more))  # type: ignore[arg-type]

    def counts(self) -> tuple[int, int, dict[str, int]]:
        lane = self.dispatcher.lane("p")
        return lane.in_flight, len(lane.waiting), self.dispatcher.report("g", 1).in_flight


@pytest.fixture
def world() -> World:
    return World()


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_wants_a_version_gets_that_one_and_holds_nobody_up(world: World) -> None:
    world.table(replica("a", version="big"), replica("b", version="small", slots=2))
    first = await world.lease(version="big")
    assert first.route.id == "a"
    waiting = world.wait(version="big")
    await turn()
    assert (await world.lease()).route.id == "b", "those behind take what is free"
    first.release(completed=True)
    assert (await waiting).route.id == "a"


async def test_slots_are_given_in_order_of_arrival(world: World) -> None:
    world.table(replica("a"))
    first = await world.lease()
    waiting = [world.wait() for _ in range(3)]
    await turn()
    assert world.counts() == (1, 3, {"a": 1})
    lease = first
    for task in waiting:
        lease.release(completed=True)
        lease = await task
        await turn()
        assert [other.done() for other in waiting] == [waiting.index(other) <= waiting.index(task) for other in waiting]
    lease.release(completed=True)
    assert world.counts() == (0, 0, {})


async def test_the_queue_is_bounded(world: World) -> None:
    world.table(replica("a"))
    await world.lease()
    waiting = [world.wait() for _ in range(4)]
    await turn()
    with pytest.raises(Overloaded) as caught:
        await world.lease()
    assert caught.value.retry_after_s is not None and caught.value.retry_after_s >= 1
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert world.counts() == (1, 0, {"a": 1})


async def test_a_sleeping_pipeline_is_woken_and_serves_who_waited(world: World) -> None:
    world.table()
    task = world.wait()
    await turn()
    assert world.woken == 1 and not task.done()
    world.table(replica("a", state="starting"))
    await turn()
    assert not task.done()
    world.table(replica("a"))
    assert (await task).route.id == "a"


async def test_waits_end_at_their_deadline(world: World) -> None:
    world.table(replica("a"))
    await world.lease()
    soon, late = world.wait(deadline=5.0), world.wait(deadline=50.0)
    await turn()
    await world.clock.advance(6)
    world.dispatcher.sweep()
    with pytest.raises(DeadlineExceeded):
        await soon
    assert not late.done() and world.counts()[1] == 1
    late.cancel()


async def test_a_blocked_pipeline_refuses(world: World) -> None:
    world.table(pipelines=(pipeline(blocked="no room"),))
    with pytest.raises(Unavailable, match="no room"):
        await world.lease()


async def test_a_granted_slot_that_nobody_takes_comes_back(world: World) -> None:
    world.table(replica("a"))
    first = await world.lease()
    task, next_one = world.wait(), world.wait()
    await turn()
    first.release(completed=True)  # grants it to the task, which has not run yet
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (await next_one).release(completed=True)
    assert world.counts() == (0, 0, {})


async def test_draining_replicas_take_nothing_new_and_tell_when_idle(world: World) -> None:
    world.table(replica("a"), replica("b"))
    first = await world.lease()
    world.table(replica("a", state="draining"), replica("b"))
    second = await world.lease()
    assert second.route.id == "b" and first.route.id == "a"
    before = world.woken
    first.release(completed=True)
    assert world.woken == before + 1


async def test_tables_are_taken_in_order_and_from_a_new_node_at_once(world: World) -> None:
    world.table(replica("a"))
    newest = world.dispatcher.table
    world.number -= 1
    world.table()
    assert world.dispatcher.table is newest
    assert newest is not None
    world.dispatcher.apply(replace(newest, node="other", number=0))
    assert world.dispatcher.table is not newest


async def test_a_removed_pipeline_ends_its_waits_and_keeps_what_runs(world: World) -> None:
    world.table(replica("a"))
    lease = await world.lease()
    task = world.wait()
    await turn()
    world.table(pipelines=(pipeline("other"),))
    with pytest.raises(ModelNotFound):
        await task
    assert world.dispatcher.report("g", 1).in_flight == {"a": 1}
    lease.release(completed=True)
    assert world.dispatcher.report("g", 1).in_flight == {}


async def test_suspects_are_left_out_for_a_while(world: World) -> None:
    world.table(replica("a", slots=4), replica("b", slots=4))
    lease = await world.lease()
    lease.suspect()
    other = {"a": "b", "b": "a"}[lease.route.id]
    assert [(await world.lease()).route.id for _ in range(3)] == [other] * 3
    assert world.dispatcher.report("g", 1).suspects == (lease.route.id,)
    await world.clock.advance(SUSPECT_S + 0.1)
    assert lease.route.id in {(await world.lease()).route.id for _ in range(3)}
    assert world.dispatcher.report("g", 1).suspects == ()


async def test_a_failed_request_waits_for_the_successor_and_holds_nobody_up(world: World) -> None:
    world.table(replica("a", slots=4))
    lease = await world.lease()
    lease.suspect()
    lease.release(completed=False)
    again = world.wait(exclude=frozenset({"a"}))
    await turn()
    assert not again.done()
    assert (await world.lease()).route.id == "a", "another request may try a suspect when nobody else is there"
    world.table(replica("a", slots=4, epoch=2))
    assert (await again).route.epoch == 2


async def test_a_failed_request_may_try_again_when_no_successor_comes(world: World) -> None:
    world.table(replica("a"))
    lease = await world.lease()
    lease.suspect()
    lease.release(completed=False)
    again = world.wait(exclude=frozenset({"a"}))
    await world.clock.advance(SUSPECT_S + 0.1)
    world.dispatcher.sweep()
    assert (await again).route.id == "a"


async def test_an_old_epochs_leases_do_not_count_on_the_new_one(world: World) -> None:
    world.table(replica("a"))
    old = await world.lease()
    world.table(replica("a", epoch=2))
    new = await world.lease()
    assert new.route.epoch == 2
    old.release(completed=False)
    new.release(completed=True)
    assert world.counts() == (0, 0, {})


async def test_reports_count_since_the_last(world: World) -> None:
    world.table(replica("a"))
    lease = await world.lease()
    waiting = world.wait()
    await turn()
    await world.clock.advance(2)
    load = world.dispatcher.report("g", 1).pipelines["p"]
    assert (load.queued, load.in_flight, load.oldest_wait_s) == (1, 1, 2.0)
    lease.release(completed=True)
    (await waiting).release(completed=True)
    load = world.dispatcher.report("g", 1).pipelines["p"]
    assert (load.queued, load.in_flight, load.busy_s) == (0, 0, 2.0)
    assert world.dispatcher.report("g", 1).pipelines["p"].busy_s == 0


async def test_a_report_tells_what_each_replica_took_and_beside_how_many(world: World) -> None:
    world.table(replica("a", slots=2), replica("b"))
    first, second, third = [await world.lease() for _ in range(3)]
    busy = {"a": 0, "b": 0}
    for lease in (first, second, third):
        busy[lease.route.id] += 1
    assert busy == {"a": 2, "b": 1}
    alone, *both = sorted((first, second, third), key=lambda lease: lease.route.id, reverse=True)
    await world.clock.advance(1.0)
    both[0].release(completed=True)
    await world.clock.advance(1.0)
    both[1].release(completed=True)
    alone.release(completed=False)
    told = world.dispatcher.report("g", 1).replicas
    assert told == {"a": ReplicaLoad(settled=2, busy_s=3.0, together_s=2.0 + 2.0 + 1.0)}, "who failed teaches nothing"
    assert world.dispatcher.report("g", 1).replicas == {}, "counted once"


async def test_a_request_that_waited_counts_from_its_turn_on(world: World) -> None:
    world.table(replica("a"))
    first, waiting = await world.lease(), world.wait()
    await turn()
    await world.clock.advance(2.0)
    first.release(completed=True)
    second = await waiting
    await world.clock.advance(0.5)
    second.release(completed=True)
    told = world.dispatcher.report("g", 1).replicas
    assert told == {"a": ReplicaLoad(settled=2, busy_s=2.5, together_s=2.5)}
