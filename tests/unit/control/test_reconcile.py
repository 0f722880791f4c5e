import asyncio
import json
from dataclasses import replace
from itertools import pairwise

import orjson
import pytest

from headgate.allocation.policy import decide
from headgate.allocation.recording import build_state, plain_allocation
from headgate.control.settings import ControlSettings
from headgate.control.status import build_status, explain_decisions
from headgate.core.errors import FloorsDoNotFit, ModelRefused
from tests.unit.control.world import StubEngine, World, make_model, make_plan


async def test_floors_are_kept_from_the_first_moment_and_after_a_crash():
    async with World(make_plan(a={"floor": 1}, b={"floor": 1})) as world:
        await world.run(0.3)
        assert world.ready("a") and world.ready("b")
        world.fleet.crash(world.ready("a")[0])
        assert not world.ready("a")
        await world.run(2.0)
        assert world.ready("a")


async def test_a_waiting_request_wakes_its_pipeline_at_once_not_at_the_next_tick():
    async with World(make_plan(settings=ControlSettings(tick_s=60), a={})) as world:
        await world.run(1.0)
        assert world.did() == []
        world.work = {"a": (1, 0)}
        before = round(world.clock.monotonic(), 3)
        world.report()
        await world.settle()
        assert world.fleet.history == [(before, "start", "a")]
        await world.run(0.15)
        assert world.ready("a")
        assert world.tables[-1].replicas[world.ready("a")[0]].state == "ready"


async def test_idle_pipelines_go_to_sleep_after_idle_s_and_not_before():
    async with World(make_plan(a={"idle_s": 5.0})) as world:
        world.work = {"a": (1, 0)}
        await world.run(0.5)
        world.work = {"a": (0, 0)}
        await world.run(4.5)
        assert world.ready("a")
        await world.run(1.5)
        assert world.did("a") == ["start", "drain", "stop"]
        assert not world.fleet.members()


async def test_a_drain_waits_for_requests_in_flight():
    async with World(make_plan(cores=1, a={}, b={"weight": 50.0})) as world:
        world.work = {"a": (1, 0)}
        await world.run(2.0)
        first = world.ready("a")[0]
        world.work, world.in_flight = {"a": (0, 1), "b": (1, 0)}, {first: 1}
        await world.run(3.0)
        assert world.did() == ["start", "drain"], "b must wait for a's request"
        assert world.tables[-1].replicas[first].state == "draining"
        world.work, world.in_flight = {"b": (1, 0)}, {}
        await world.run(0.3)
        assert world.did() == ["start", "drain", "stop", "start"]
        assert world.ready("b")


async def test_a_draining_replica_is_taken_back_when_it_is_wanted_again():
    async with World(make_plan(cores=1, a={}, b={"weight": 50.0})) as world:
        world.work = {"a": (1, 0)}
        await world.run(2.0)
        first = world.ready("a")[0]
        world.work, world.in_flight = {"a": (0, 1), "b": (1, 0)}, {first: 1}
        await world.run(3.0)
        assert world.did() == ["start", "drain"]
        world.work = {"a": (1, 1)}
        await world.run(0.3)
        assert world.did() == ["start", "drain", "take back"] and world.ready("a") == [first]
        assert world.tables[-1].replicas[first].state == "ready"
        assert world.reconciler.decisions[-1].moves == ({"kind": "take_back", "pipeline": "a", "replica": first},)
        world.in_flight = {}
        await world.run(0.3)
        assert world.ready("a") == [first], "what ends now ends no drain"
        world.work = {"b": (1, 0)}
        await world.run(3.0)
        assert world.did() == ["start", "drain", "take back", "drain", "stop", "start"] and world.ready("b")


@pytest.mark.parametrize("trouble", ["suspect", "stopping", "changed"])
async def test_one_that_fails_or_stops_or_is_outdated_is_not_taken_back(trouble):
    async with World(make_plan(cores=2, a={"floor": 1})) as world:
        await world.run(0.5)
        first = world.ready("a")[0]
        world.in_flight = {first: 1} if trouble != "stopping" else {}
        world.reconciler.apply_plan(world.change("a", floor=0, idle_s=0.1))
        await world.run(0.01 if trouble == "stopping" else 2.0, step=0.01)
        while trouble == "stopping" and "stop" not in world.did():
            await world.run(0.01, step=0.01)
        assert world.did()[:2] == ["start", "drain"] and world.fleet.members()
        world.suspects = (first,) if trouble == "suspect" else ()
        if trouble == "changed":
            world.reconciler.apply_plan(replace(world.plan, models={"a": make_model("a", digest="sha256:2")}))
        world.work = {"a": (1, 0)}
        await world.run(1.0)
        assert "take back" not in world.did()
        assert world.ready("a") and first not in world.ready("a")


async def test_a_report_from_before_the_drain_proves_nothing():
    async with World(make_plan(cores=1, a={}, b={})) as world:
        world.work = {"a": (1, 0)}
        await world.run(2.0)
        stale = world.reconciler.table.number
        world.gateway_listens = False
        world.work = {"b": (1, 0)}
        for _ in range(20):
            world.report(number=stale)
            await world.clock.advance(0.1)
        assert world.did("a") == ["start", "drain"]
        world.report()
        await world.settle()
        assert world.did("a") == ["start", "drain", "stop"]


async def test_a_replica_that_never_drains_is_stopped_after_the_longest_request():
    plan = make_plan(settings=ControlSettings(drain_s=5), cores=1, a={"timeout_s": 20.0}, b={"weight": 9.0})
    async with World(plan) as world:
        world.work = {"a": (1, 0)}
        await world.run(2.0)
        world.in_flight = {world.ready("a")[0]: 1}
        world.work = {"b": (1, 0)}
        await world.run(19.0)
        assert "stop" not in world.did("a")
        await world.run(3.0)
        assert "stop" in world.did("a")


async def test_without_any_gateway_a_drain_is_over_once_the_node_has_waited_for_them():
    async with World(make_plan(a={"floor": 1})) as world:
        await world.run(0.5)
        world.gateway_listens = False
        world.reconciler.leave("g1")
        world.reconciler.apply_plan(make_plan())
        await world.run(1.0)
        assert world.did("a") == ["start", "drain"]
        await world.run(3.0)
        assert world.did("a") == ["start", "drain", "stop"]


async def test_an_idle_replica_gives_way_at_once_when_the_pool_is_full():
    async with World(make_plan(cores=1, a={"idle_s": 600.0}, b={"idle_s": 600.0})) as world:
        world.work = {"a": (1, 0)}
        await world.run(0.5)
        world.work = {}
        await world.run(5.0)
        assert world.ready("a")
        began = world.clock.monotonic()
        world.work = {"b": (1, 0)}
        await world.run(1.0)
        assert world.ready("b") and not world.ready("a")
        started = next(at for at, what, name in world.fleet.history if (what, name) == ("start", "b"))
        assert started - began <= 0.15
        assert "gave way to b" in " ".join(one.reason for one in world.reconciler.decisions)


async def test_crashes_back_off_and_then_block_the_pipeline_with_the_reason():
    settings = ControlSettings(backoff_first_s=1, backoff_limit_s=8, block_after=4, block_retry_s=30)
    async with World(make_plan(settings=settings, a={"floor": 1})) as world:
        world.fleet.failing = {"a"}
        await world.run(20.0)
        starts = [at for at, what, _ in world.fleet.history if what == "start"]
        gaps = [later - earlier for earlier, later in pairwise(starts)]
        assert len(starts) == 4
        assert gaps == sorted(gaps) and gaps[0] < 1.3 < 3.0 <= gaps[2]
        route = world.tables[-1].pipelines["a"]
        assert "4 times in a row" in route.blocked and "exited with code 1" in route.blocked
        world.fleet.failing = set()
        await world.run(30.0)
        assert world.ready("a")
        assert world.tables[-1].pipelines["a"].blocked is None


async def test_a_crash_of_one_pipeline_does_not_hold_another():
    async with World(make_plan(a={"floor": 1}, b={"floor": 1})) as world:
        world.fleet.failing = {"a"}
        await world.run(5.0)
        assert world.ready("b") and not world.ready("a")


async def test_a_suspect_is_looked_at_and_one_that_is_broken_is_replaced_at_once():
    async with World(make_plan(settings=ControlSettings(tick_s=60), a={"floor": 2})) as world:
        await world.run(0.5)
        well, broken = world.ready("a")
        world.fleet.broken = {broken}
        world.suspects = (well, broken, "gone")
        world.report()
        await world.settle()
        assert world.fleet.looked == [well, broken]
        assert world.ready("a") == [well]
        world.suspects = ()
        await world.run(3.0)
        assert len(world.ready("a")) == 2 and broken not in world.ready("a")
        assert world.reconciler.crashes == 1


async def test_a_suspect_that_others_still_hear_from_is_left_alone():
    async with World(make_plan(a={"floor": 1})) as world:
        await world.run(0.5)
        world.fleet.broken = set(world.ready("a"))
        world.suspects, world.in_flight = tuple(world.ready("a")), {world.ready("a")[0]: 1}
        await world.run(0.5)
        assert "crash" not in world.did("a")
        world.in_flight = {}
        await world.run(0.1)
        assert "crash" in world.did("a")


async def test_capacity_follows_load_and_never_passes_the_budget():
    async with World(make_plan(cores=4, a={"cap": 8}, b={"cap": 8})) as world:
        world.work = {"a": (4, 8)}
        await world.run(3.0)
        assert len(world.ready("a")) == 4
        world.work = {"a": (0, 2), "b": (4, 12)}
        await world.run(12.0)
        assert len(world.ready("b")) >= 3 and len(world.ready("a")) >= 1


async def test_many_small_pipelines_share_few_cores():
    names = {f"p{number}": {} for number in range(8)}
    async with World(make_plan(cores=2, share=0.25, **names)) as world:
        world.work = {name: (1, 0) for name in names}
        await world.run(0.3)
        assert all(world.ready(name) for name in names)


async def test_a_removed_pipeline_is_drained_and_an_added_one_served():
    async with World(make_plan(cores=1, a={"floor": 1})) as world:
        await world.run(0.5)
        first = world.ready("a")[0]
        world.in_flight = {first: 1}
        summary = world.reconciler.apply_plan(make_plan(cores=1, b={"floor": 1}))
        assert (summary["added"], summary["removed"]) == (["b"], ["a"])
        await world.run(2.0)
        assert world.did("a") == ["start", "drain"] and "a" not in world.tables[-1].pipelines
        assert world.tables[-1].replicas[first].state == "draining", "its stream goes on"
        world.in_flight = {}
        await world.run(0.5)
        assert world.ready("b")


async def test_weights_and_queues_change_in_place():
    async with World(make_plan(a={"floor": 1})) as world:
        await world.run(0.5)
        summary = world.reconciler.apply_plan(world.change("a", queue=7, weight=3.0, first_token_s=0.2))
        await world.run(1.0)
        assert summary["adjusted"] == ["a"] and world.did() == ["start"]
        route = world.tables[-1].pipelines["a"]
        assert (route.queue, route.weight, route.first_token_s) == (7, 3.0, 0.2)


@pytest.mark.parametrize("cores", [1, 2])
async def test_a_changed_model_is_made_before_the_old_one_breaks_when_there_is_room(cores):
    async with World(make_plan(cores=cores, a={"floor": 1})) as world:
        await world.run(0.5)
        old = world.ready("a")[0]
        plan = replace(world.plan, models={"a": make_model("a", digest="sha256:2")})
        assert world.reconciler.apply_plan(plan)["replaced"] == ["a"]
        await world.run(1.0)
        order = ["start", "start", "drain", "stop"] if cores == 2 else ["start", "drain", "stop", "start"]
        assert world.did("a") == order
        assert world.ready("a") and old not in world.ready("a")
        assert world.tables[-1].replicas[world.ready("a")[0]].version == "sha256:2"


async def test_a_new_model_that_crashes_leaves_the_old_one_serving():
    async with World(make_plan(cores=2, a={"floor": 1})) as world:
        await world.run(0.5)
        old = world.ready("a")
        world.fleet.failing = {"a"}
        world.reconciler.apply_plan(replace(world.plan, models={"a": make_model("a", digest="sha256:2")}))
        await world.run(30.0)
        assert world.ready("a") == old
        assert world.tables[-1].pipelines["a"].blocked is None


async def test_a_bad_plan_is_refused_and_the_last_good_one_stays():
    async with World(make_plan(cores=2, a={"floor": 1})) as world:
        await world.run(0.5)
        before = world.plan
        with pytest.raises(FloorsDoNotFit, match=r"pipelines\.a\.floor"):
            world.reconciler.apply_plan(world.change("a", floor=3, cap=3))
        broken = StubEngine()
        broken.refuses = ModelRefused("no")
        with pytest.raises(ModelRefused):
            world.reconciler.apply_plan(replace(before, models={"a": make_model("a", engine=broken)}))
        await world.run(1.0)
        assert world.plan is before and world.did() == ["start"]


async def test_decisions_are_written_once_with_reason_and_replay_to_the_same_allocation():
    async with World(make_plan(cores=1, a={}, b={})) as world:
        for pipeline in "abab":
            world.work = {pipeline: (2, 0)}
            await world.run(4.0)
        rows = world.journal.decisions
        assert len(rows) >= 4
        assert [row["number"] for row in rows] == list(range(1, len(rows) + 1))
        assert all(row["reason"] for row in rows)
        for row in rows:
            told = orjson.dumps(row["state"])
            state = build_state(json.loads(told))
            again = decide(state)
            assert orjson.dumps(plain_allocation(decide(build_state(orjson.loads(told))))) == orjson.dumps(
                plain_allocation(again)
            )
            reasons = "; ".join(f"{one.pipeline} {one.before} -> {one.after}: {one.reason}" for one in again.changes)
            assert reasons == row["reason"]
        assert explain_decisions(world.reconciler, 1)[0]["number"] == len(rows)


async def test_the_status_tells_pools_pipelines_and_replicas_and_no_secret():
    async with World(make_plan(a={"floor": 1}, b={})) as world:
        world.work = {"a": (0, 2)}
        await world.run(0.5)
        status = build_status(world.reconciler)
        assert status["pipelines"]["a"]["ready"] == 1 and status["pipelines"]["a"]["in_flight"] == 2
        assert status["pools"][0]["cores_used"] == 1.0
        assert status["moves"] == {"start": 1, "drain": 0, "stop": 0, "rest": 0, "wake": 0}
        assert b"secret" not in orjson.dumps(status)


async def test_the_status_tells_prices_and_values_also_right_after_a_reload():
    async with World(make_plan(cores=1, a={}, b={})) as world:
        world.work = {"a": (20, 4), "b": (20, 0)}
        await world.run(2.0)
        status = build_status(world.reconciler)
        assert status["gap_to_bound"] is not None and status["pools"][0]["price"] > 0.0
        assert status["pipelines"]["b"]["value"] > 0.0 and status["pipelines"]["b"]["shed"] == 1.0, "nothing is left"
        more = (*world.plan.capacity.pools, replace(world.plan.capacity.pools[0], name="more"))
        world.reconciler.apply_plan(replace(world.plan, capacity=replace(world.plan.capacity, pools=more)))
        assert [pool["price"] for pool in build_status(world.reconciler)["pools"]] == [None, None]


async def test_rented_replicas_are_kept_while_they_are_called_often_enough_for_their_price():
    plan = make_plan(cores=4, a={"idle_s": 2.0, "cap": 4})
    pools = tuple(replace(pool, elastic=True, price_per_hour=3.0) for pool in plan.capacity.pools)
    async with World(replace(plan, capacity=replace(plan.capacity, pools=pools))) as world:
        for _ in range(20):
            world.work = {"a": (0, 1)}
            await world.run(1.0)
            world.work = {}
            await world.run(29.0)
        status = build_status(world.reconciler)
        assert status["pipelines"]["a"]["kept"] == status["pipelines"]["a"]["ready"] == 1, "its idle time has passed"
        assert status["moves"]["start"] <= 2, "of the first call nothing was known yet"
        await world.run(2000.0)
        assert build_status(world.reconciler)["pipelines"]["a"]["ready"] == 0
        assert world.journal.decisions[-1]["reason"].startswith("a 1 -> 0: not called often enough for its price")


async def test_what_an_earlier_node_left_running_is_kept_and_table_numbers_go_on():
    first = World(make_plan(a={"floor": 1}))
    async with first:
        await first.run(0.5)
        left = first.fleet.members()
    second = World(make_plan(a={"floor": 1}), journal=first.journal)
    second.clock._elapsed = 10.0
    second.fleet.left_behind = left
    await second.fleet.adopt(second.plan)
    async with second:
        await second.run(1.0)
        assert second.did() == [] and second.ready("a") == [left[0].id]
    second_node = World(make_plan(a={"floor": 1}))
    await second_node.clock.advance(60.0)
    assert second.reconciler.table.number > first.reconciler.table.number - 10_000


async def test_a_turn_that_fails_is_followed_by_another(caplog):
    async with World(make_plan(a={})) as world:
        broken = world.reconciler._journal.record_decision
        world.reconciler._journal.record_decision = lambda row: 1 / 0
        world.work = {"a": (1, 0)}
        await world.run(0.5)
        assert "reconcile loop failed" in caplog.text
        world.reconciler._journal.record_decision = broken
        await world.run(1.0)
        assert world.ready("a")


async def test_a_gateway_that_falls_silent_is_forgotten():
    async with World(make_plan(a={"idle_s": 1.0})) as world:
        world.work = {"a": (3, 0)}
        await world.run(1.0)
        world.gateway_listens = False
        await world.run(4.0)
        assert world.ready("a")
        await world.run(10.0)
        assert not world.fleet.members()
    await asyncio.sleep(0)
