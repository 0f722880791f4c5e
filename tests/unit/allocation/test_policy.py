from dataclasses import replace

import pytest

from headgate.allocation.capacity import Capacity, Node, Pool
from headgate.allocation.demand import Demand
from headgate.allocation.packing import check_floors
from headgate.allocation.pipeline import Configuration, PipelineSpec
from headgate.allocation.policy import decide
from headgate.allocation.profile import Profile
from headgate.allocation.settings import TargetSettings
from headgate.allocation.state import History, Running, State
from headgate.core.errors import FloorsDoNotFit

GB = 10**9


def make_capacity(cores=2, memory=100 * GB, share=None) -> Capacity:
    node = Node(name="n", devices=tuple(range(cores)), share=share or float(cores), memory_bytes=memory)
    return Capacity(pools=(Pool(name="cpu", kind="cpu", nodes=(node,)),))


def spec(name, share=1.0, slots=4, memory=GB, key="v1", wake_s=0.1, **more) -> PipelineSpec:
    one = Configuration(key=key, pool="cpu", share=share, slots=slots, memory_bytes=memory, wake_s=wake_s)
    return PipelineSpec(name=name, configurations=(one,), **{"cap": 8, **more})


def runs(name, pipeline, core, share=1.0, stage="ready", key="v1", in_flight=0, memory=GB) -> Running:
    return Running(
        id=name, pipeline=pipeline, configuration=key, pool="cpu", node="n", devices=(core,), share=share,
        memory_bytes=memory, stage=stage, in_flight=in_flight,
    )  # fmt: skip


def load(inside, **more) -> Demand:
    return Demand(**{"in_flight": inside, "concurrency": float(inside), **more})


def state(capacity, *specs, at=1000.0, **more) -> State:
    return State(at=at, capacity=capacity, pipelines=specs, **more)


def why(allocation, pipeline) -> str:
    return next(one.reason for one in allocation.changes if one.pipeline == pipeline)


def test_floors_come_before_any_load():
    busy = {"a": load(40)}
    allocation = decide(state(make_capacity(2), spec("a"), spec("b", floor=1), demands=busy))
    assert allocation.replicas == {"a": 1, "b": 1}
    assert why(allocation, "b") == "floor of 1"
    assert allocation.unmet == {"a": 7}


def test_priority_goes_before_load_and_load_before_order():
    busy = {"a": load(40), "b": load(4), "c": load(8)}
    capacity = make_capacity(2)
    assert decide(state(capacity, spec("a"), spec("b"), spec("c"), demands=busy)).replicas == {"a": 1, "c": 1}
    vip = spec("b", priority="guaranteed")
    assert decide(state(capacity, spec("a"), vip, spec("c"), demands=busy)).replicas == {"a": 1, "b": 1}


def test_capacity_follows_load_relative_to_the_others_and_weight():
    busy = {"a": load(16), "b": load(8)}
    enough = decide(state(make_capacity(10), spec("a"), spec("b"), demands=busy))
    assert enough.replicas == {"a": 6, "b": 4}, "six and four keep about as many on time, though one has twice the load"
    assert decide(state(make_capacity(6), spec("a"), spec("b"), demands=busy)).replicas == {"a": 4, "b": 2}
    light = decide(state(make_capacity(3), spec("a"), spec("b"), demands=busy)).replicas
    heavy = decide(state(make_capacity(3), spec("a", weight=9.0), spec("b"), demands=busy)).replicas
    assert (light, heavy) == ({"a": 1, "b": 2}, {"a": 2, "b": 1}), "where it keeps more on time, and by weight"


def test_a_change_says_what_it_gains_and_a_gap_what_could_be_gained_at_most():
    allocation = decide(state(make_capacity(3), spec("a"), spec("b"), demands={"a": load(4), "b": load(4)}))
    assert all(one.gained > 0.0 and "; utility " in one.reason for one in allocation.changes)
    assert 0.0 <= allocation.gap_to_bound < 0.01
    assert len(allocation.prices[0]) == 1 and allocation.prices[0][0] > 0.0, "one more core would bring something"


def test_who_cannot_be_served_whole_is_told_which_part_is_beyond_it_and_who_is_shed_first():
    busy = {"a": load(40), "b": load(40)}
    allocation = decide(state(make_capacity(2), spec("a"), spec("b", priority="best_effort"), demands=busy))
    assert allocation.replicas == {"a": 1, "b": 1}
    assert list(allocation.shed) == ["b", "a"] and allocation.shed["a"] == pytest.approx(0.9, abs=0.03)


def test_a_pipeline_of_two_pools_uses_both_and_the_faster_first():
    cpu = make_capacity(2).pools[0]
    gpus = Node(name="n", devices=(0,), share=1.0, memory_bytes=100 * GB, device_memory_bytes=100 * GB)
    capacity = Capacity(pools=(cpu, Pool(name="gpu", kind="gpu", nodes=(gpus,))))
    slow = Configuration(key="c", pool="cpu", share=1.0, slots=4, memory_bytes=GB, profile=Profile(service_s=1.0))
    fast = Configuration(key="g", pool="gpu", share=1.0, slots=4, memory_bytes=GB, profile=Profile(service_s=0.1))
    both = PipelineSpec(name="a", configurations=(fast, slow), cap=8)
    light = decide(state(capacity, both, demands={"a": load(1)}))
    heavy = decide(state(capacity, both, demands={"a": load(40)}))
    assert {seat.configuration for seat in light.seats} == {"g"}
    assert sorted(seat.configuration for seat in heavy.seats) == ["c", "c", "g"]


def test_a_waker_takes_the_free_place_of_its_second_configuration_before_it_pushes_for_its_first():
    capacity = Capacity(pools=(*make_capacity(1).pools, replace(make_capacity(1).pools[0], name="fast")))
    ways = tuple(
        Configuration(key=pool, pool=pool, share=1.0, slots=4, memory_bytes=GB, wake_s=0.1) for pool in ("fast", "cpu")
    )
    other = replace(spec("b"), configurations=(replace(ways[0], key="v1"),))
    running = (replace(runs("r1", "b", 0, in_flight=1), pool="fast"),)
    waiting = load(1, in_flight=0, queued=1, oldest_wait_s=0.1)
    demands = {"a": waiting, "b": load(1)}
    both = PipelineSpec(name="a", configurations=ways, cap=2)
    seats = decide(state(capacity, both, other, running=running, demands=demands)).seats
    assert {(seat.pipeline, seat.pool) for seat in seats} == {("a", "cpu"), ("b", "fast")}


def test_a_configuration_that_is_held_leaves_its_work_to_the_others():
    capacity = Capacity(pools=(*make_capacity(2).pools, replace(make_capacity(2).pools[0], name="fast")))
    ways = tuple(
        Configuration(key=pool, pool=pool, share=1.0, slots=4, memory_bytes=GB, wake_s=0.1) for pool in ("fast", "cpu")
    )
    both = PipelineSpec(name="a", configurations=ways, cap=4)
    held = {"a": {"fast": "it crashed"}}
    seats = decide(state(capacity, both, demands={"a": load(9)}, held=held)).seats
    assert [seat.pool for seat in seats] == ["cpu", "cpu"]
    running = (replace(runs("r1", "a", 0, key="fast"), pool="fast"),)
    seats = decide(state(capacity, both, demands={"a": load(9)}, held=held, running=running)).seats
    assert sorted((seat.pool, seat.replica) for seat in seats if seat.replica) == [("fast", "r1")]
    assert [seat.pool for seat in seats if seat.replica is None] == ["cpu", "cpu"]


def test_free_capacity_is_used_while_there_are_more_requests_than_replicas():
    allocation = decide(state(make_capacity(6), spec("a"), demands={"a": load(4)}))
    assert allocation.replicas == {"a": 4}
    assert decide(state(make_capacity(6), spec("a", cap=2), demands={"a": load(4)})).replicas == {"a": 2}


def test_an_idle_replica_gives_way_to_one_who_waits_and_a_busy_one_does_not_before_its_turn():
    running = (runs("r1", "a", 0),)
    waiting = load(1, in_flight=0, queued=1, oldest_wait_s=0.1)
    idle = state(make_capacity(1), spec("a"), spec("b"), running=running, demands={"b": waiting})
    assert decide(idle).replicas == {"b": 1}
    assert why(decide(idle), "a").startswith("gave way to b")
    fresh = replace(idle, demands={"a": load(2), "b": waiting}, histories={"a": History(raised_at=999.9)})
    assert decide(fresh).replicas == {"a": 1}
    assert decide(fresh).unmet == {"b": 1}


def test_surplus_stays_until_idle_s_has_passed():
    running = (runs("r1", "a", 0), runs("r2", "a", 1))
    calm = state(make_capacity(2), spec("a", idle_s=30.0), running=running, demands={"a": load(1, idle_for_s=0.0)})
    first = decide(calm)
    assert first.replicas == {"a": 2} and first.histories["a"].surplus_since == 1000.0
    later = replace(calm, at=1029.0, histories=first.histories)
    assert decide(later).replicas == {"a": 2}
    late = replace(calm, at=1030.0, histories=first.histories)
    assert decide(late).replicas == {"a": 1}
    assert why(decide(late), "a") == "more than its load needs for 30 s"


def test_an_idle_pipeline_sleeps_after_idle_s_and_keeps_its_floor():
    running = (runs("r1", "a", 0), runs("r2", "a", 1))
    demands = {"a": Demand(idle_for_s=31.0)}
    assert decide(state(make_capacity(2), spec("a"), running=running, demands=demands)).replicas == {}
    kept = decide(state(make_capacity(2), spec("a", floor=1), running=running, demands=demands))
    assert kept.replicas == {"a": 1} and "idle for 31 s" in why(kept, "a")


def test_a_held_pipeline_gets_nothing_new_and_keeps_what_runs():
    demands = {"a": load(9)}
    held = {"a": {"v1": "it crashed"}}
    assert decide(state(make_capacity(2), spec("a", floor=1), demands=demands, held=held)).replicas == {}
    running = (runs("r1", "a", 0),)
    kept = decide(state(make_capacity(2), spec("a", floor=1), demands=demands, held=held, running=running))
    assert [seat.replica for seat in kept.seats] == ["r1"]


def test_who_is_back_in_a_moment_gives_way_at_once_and_who_is_not_keeps_its_place_while_it_is_at_work():
    running = (runs("r1", "a", 0),)
    waiting = load(6, in_flight=0, queued=6, oldest_wait_s=0.1)
    just_served = load(1, in_flight=0, idle_for_s=0.1)
    demands = {"a": just_served, "b": waiting}
    told = {"a": History(raised_at=999.5)}
    two = state(make_capacity(1), spec("a"), spec("b"), running=running, demands=demands, histories=told)
    assert decide(two).replicas == {"b": 1}
    unloaded = replace(two, pipelines=(spec("a", warm_s=0.0), spec("b")))
    assert decide(unloaded).replicas == {"a": 1}
    crowded = replace(two, pipelines=(spec("a", memory=60 * GB), spec("b", memory=60 * GB)))
    assert decide(crowded).replicas == {"a": 1}, "there is no memory for both"
    slow = replace(two, demands={"a": just_served, "b": replace(waiting, service_s=20.0)})
    assert decide(slow).replicas == {"a": 1}, "what b begins takes long, and a would wait for it"
    starting = replace(two, running=(runs("r1", "a", 0, stage="starting"),))
    assert decide(starting).replicas == {"a": 1}


def test_nobody_who_sits_is_moved_and_a_new_one_goes_where_nobody_is():
    running = (runs("r1", "a", 0, share=0.25), runs("r2", "b", 1, share=0.5))
    specs = (spec("a", share=0.25), spec("b", share=0.5), spec("c", share=0.5))
    demands = {name: load(1) for name in "abc"}
    seats = {
        seat.pipeline: seat for seat in decide(state(make_capacity(2), *specs, running=running, demands=demands)).seats
    }
    assert (seats["a"].replica, seats["b"].replica) == ("r1", "r2")
    assert seats["c"].devices == (0,), "the emptiest core, where that leaves as much room for big ones"


def test_small_replicas_leave_a_core_for_big_ones_and_else_spread():
    demands = {"a": load(40), "b": load(1)}
    small, big = spec("a", share=0.25, cap=2), spec("b", share=1.0)
    beside = {seat.devices for seat in decide(state(make_capacity(2), small, big, demands=demands)).seats}
    assert beside == {(0,), (1,)}
    alone = [seat.devices for seat in decide(state(make_capacity(2), small, demands=demands)).seats]
    assert sorted(alone) == [(0,), (1,)], "a core's idle time is used by whoever sits there"


def powered(cores, watts, **more) -> Capacity:
    node = Node(name="n", devices=tuple(range(cores)), share=float(cores), memory_bytes=100 * GB)
    return Capacity(pools=(Pool(name="cpu", kind="cpu", nodes=(node,), watts=10.0, **more),), watts=watts)


def test_a_limit_of_power_holds_for_floors_and_for_everyone_after_them():
    busy = {"a": load(40), "b": load(40)}
    specs = (spec("a"), spec("b", floor=1))
    assert sum(decide(state(powered(8, 35.0), *specs, demands=busy)).replicas.values()) == 3
    assert decide(state(powered(8, 10.0), *specs, demands=busy)).replicas == {"b": 1}
    running = tuple(runs(f"r{core}", "a", core) for core in range(4))
    over = decide(state(powered(8, 25.0), *specs, running=running, demands=busy))
    assert sum(over.replicas.values()) == 2, "a limit that was lowered is kept to by draining"


def test_an_elastic_device_is_held_while_it_is_worth_its_price():
    demands = {"a": load(4)}
    cheap = powered(8, None, elastic=True, price_per_hour=0.01)
    dear = powered(8, None, elastic=True, price_per_hour=100.0)
    assert decide(state(cheap, spec("a"), demands=demands)).replicas["a"] > 1
    assert decide(state(dear, spec("a"), demands=demands)).replicas == {"a": 1}
    assert decide(state(powered(8, None, price_per_hour=100.0), spec("a"), demands=demands)).replicas["a"] > 1


def test_fairness_serves_who_would_be_given_up():
    busy = {"a": load(24), "b": load(12)}
    both = state(make_capacity(6), spec("a"), spec("b"), demands=busy)
    assert decide(both).replicas == {"a": 1, "b": 5}, "b can be served on time and a cannot"
    assert decide(replace(both, settings=TargetSettings(alpha=1.0))).replicas == {"a": 4, "b": 2}


def test_badly_sitting_replicas_move_when_a_floor_would_not_fit_otherwise():
    running = (runs("r1", "a", 0, share=0.5), runs("r2", "a", 1, share=0.5))
    specs = (spec("a", share=0.5, floor=2), spec("b", floor=1))
    allocation = decide(state(make_capacity(2), *specs, running=running))
    assert allocation.replicas == {"a": 2, "b": 1}
    assert len({seat.replica for seat in allocation.seats} - {None}) == 1


def test_a_quota_below_the_cores_and_memory_are_budgets_too():
    demands = {"a": load(40)}
    assert decide(state(make_capacity(2, share=1.5), spec("a"), demands=demands)).replicas == {"a": 1}
    assert decide(state(make_capacity(4, memory=2 * GB), spec("a"), demands=demands)).replicas == {"a": 2}


def test_whole_core_replicas_get_whole_cores():
    allocation = decide(state(make_capacity(4), spec("a", share=2.0, cap=2), demands={"a": load(40)}))
    assert sorted(seat.devices for seat in allocation.seats) == [(0, 1), (2, 3)]


def test_who_is_no_longer_declared_leaves():
    allocation = decide(state(make_capacity(2), running=(runs("r1", "old", 0),)))
    assert allocation.seats == () and why(allocation, "old") == "the pipeline is no longer declared"


@pytest.mark.parametrize(
    ("capacity", "specs", "text"),
    [
        (make_capacity(1), (spec("a", floor=2),), "pipelines.a.floor"),
        (make_capacity(2), (spec("a", floor=1), spec("b", floor=2)), "lower a floor"),
        (make_capacity(2, memory=GB), (spec("a", memory=3 * GB),), "2000000000 missing"),
        (make_capacity(2), (spec("a", share=3.0),), "needs 3.0 cores"),
        (make_capacity(2), (spec("a", share=1.5),), "whole number"),
        (Capacity(pools=()), (spec("a"),), "not declared"),
    ],
    ids=["cores", "together", "memory", "share", "half", "pool"],
)
def test_what_can_never_fit_is_refused_by_name(capacity, specs, text):
    with pytest.raises(FloorsDoNotFit, match=text):
        check_floors(capacity, specs)


def test_thirds_fit_a_core_three_times():
    check_floors(make_capacity(1), (spec("a", share=0.333, floor=3, cap=3),))
    with pytest.raises(FloorsDoNotFit):
        check_floors(make_capacity(1), (spec("a", share=0.3334, floor=3, cap=3),))


def test_gpu_memory_is_counted_for_each_device():
    node = Node(name="n", devices=(0, 1), share=2.0, memory_bytes=20 * GB, device_memory_bytes=10 * GB)
    capacity = Capacity(pools=(Pool(name="cpu", kind="gpu", nodes=(node,)),))
    allocation = decide(state(capacity, spec("a", share=0.5, memory=6 * GB), demands={"a": load(40)}))
    assert sorted(seat.devices for seat in allocation.seats) == [(0,), (1,)]
