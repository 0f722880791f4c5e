"""Replicas that lost their devices and stay loaded: who, how long, and how they serve again."""

from dataclasses import replace

import pytest

from headgate.allocation.capacity import Capacity, Node, Pool
from headgate.allocation.packing import Board
from headgate.allocation.plan import plan_moves
from headgate.allocation.policy import decide
from headgate.allocation.profile import Profile
from headgate.allocation.recording import build_state, plain_state
from tests.unit.allocation.test_policy import GB, load, make_capacity, runs, spec, state

IDLE = load(0, idle_for_s=100.0, concurrency=0.0)


def rests(name, pipeline, core=0, since_s=5.0, **more):
    return replace(runs(name, pipeline, core, stage="warm", **more), rested_s=since_s)


def kinds(now, allocation):
    return [move.kind for move in plan_moves(now.running, allocation.seats, now.capacity, allocation.resting).moves]


def test_who_gives_its_devices_up_stays_loaded_where_memory_is_free():
    now = state(
        make_capacity(1), spec("a"), spec("b"), demands={"a": IDLE, "b": load(2)}, running=(runs("r1", "a", 0),)
    )
    allocation = decide(now)
    assert allocation.replicas == {"b": 1} and allocation.resting == ("r1",)
    assert kinds(now, allocation) == ["drain", "rest", "start"]
    assert decide(build_state(plain_state(now))) == allocation


def test_a_warm_replica_serves_again_on_any_core_and_no_other_is_started():
    running = (rests("r1", "a"), runs("r2", "b", 0, in_flight=4))
    now = state(make_capacity(2), spec("a"), spec("b"), demands={"a": load(1), "b": load(4)}, running=running)
    allocation = decide(now)
    seats = {seat.pipeline: seat for seat in allocation.seats}
    assert seats["a"].replica == "r1" and seats["a"].devices == (1,), "it held no core, so nobody had to leave its own"
    assert kinds(now, allocation) == ["wake"]


def test_a_wake_waits_for_the_devices_and_not_for_memory_that_it_has():
    running = (rests("r1", "a", memory=2 * GB), runs("r2", "b", 0, memory=2 * GB))
    now = state(
        make_capacity(1, memory=4 * GB),
        spec("a", memory=2 * GB), spec("b", memory=2 * GB),
        demands={"a": load(1), "b": IDLE}, running=running,
    )  # fmt: skip
    moves = plan_moves(now.running, decide(now).seats, now.capacity, decide(now).resting).moves
    assert [move.kind for move in moves] == ["drain", "rest", "wake"] and moves[-1].after == ("r2",)


def test_a_new_replica_takes_the_memory_of_who_rests():
    running = (rests("r1", "a", memory=3 * GB),)
    now = state(
        make_capacity(1, memory=4 * GB), spec("a", memory=3 * GB), spec("b", memory=2 * GB),
        demands={"a": IDLE, "b": load(1)}, running=running,
    )  # fmt: skip
    allocation = decide(now)
    moves = plan_moves(now.running, allocation.seats, now.capacity, allocation.resting).moves
    assert not allocation.resting
    assert [move.kind for move in moves] == ["stop", "start"] and moves[-1].after == ("r1",)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"wake_s": 4.0}, {}),
        ({"weight": 4.0}, {}),
        ({}, {"memory": 2 * GB}),
    ],
)
def test_memory_goes_to_whoever_saves_most_by_it(first, second):
    specs = (spec("a", **second), spec("b", **first))
    sizes = {one.name: one.configurations[0].memory_bytes for one in specs}
    running = tuple(rests(f"r-{name}", name, memory=sizes[name]) for name in ("a", "b"))
    tight = make_capacity(1, memory=max(sizes.values()))
    assert decide(state(tight, *specs, demands={"a": IDLE, "b": IDLE}, running=running)).resting == ("r-b",)


def test_who_rested_longest_goes_first_and_nobody_rests_for_ever():
    running = (rests("r1", "a", since_s=50.0), rests("r2", "b", since_s=5.0))
    demands = {"a": IDLE, "b": IDLE}
    both = state(make_capacity(1), spec("a"), spec("b"), demands=demands, running=running)
    assert decide(both).resting == ("r1", "r2")
    assert decide(replace(both, capacity=make_capacity(1, memory=GB))).resting == ("r2",)
    short = state(make_capacity(1), spec("a", warm_s=50.0), spec("b", warm_s=0.0), demands=demands, running=running)
    assert decide(short).resting == () and kinds(short, decide(short)) == ["stop", "stop"]


def test_an_outdated_a_rented_and_a_superfluous_one_do_not_rest():
    demands = {"a": IDLE}
    outdated = state(make_capacity(1), spec("a", key="v2"), demands=demands, running=(rests("r1", "a"),))
    assert decide(outdated).resting == ()
    capacity = make_capacity(1)
    rented = Capacity(pools=tuple(replace(pool, elastic=True, price_per_hour=1.0) for pool in capacity.pools))
    assert decide(state(rented, spec("a"), demands=demands, running=(rests("r1", "a"),))).resting == ()
    many = tuple(rests(f"r{number}", "a", since_s=float(number)) for number in range(4))
    assert decide(state(capacity, spec("a", cap=2), demands=demands, running=many)).resting == ("r0", "r1")


def test_one_that_rests_on_a_gpu_serves_on_that_gpu_alone():
    node = Node(name="n", devices=(0, 1), share=2.0, memory_bytes=100 * GB, device_memory_bytes=4 * GB)
    capacity = Capacity(pools=(Pool(name="cpu", kind="gpu", nodes=(node,)),))
    warm, one = rests("r1", "a", 1, memory=3 * GB), spec("a", memory=3 * GB)
    seat = Board(capacity, (warm,)).seat("a", one.configurations[0], wakes=warm)
    assert seat is not None and seat.devices == (1,) and seat.replica == "r1"
    busy = Board(capacity, (warm,))
    busy.enter(runs("r2", "b", 1, memory=GB))
    assert busy.seat("a", one.configurations[0], wakes=warm) is None
    assert not Board(capacity).rest(replace(warm, memory_bytes=5 * GB)), "more than the GPU has"


def test_a_file_sleeps_in_the_machines_memory_not_in_a_gpus():
    gpus = Node(name="n", devices=(0,), share=1.0, memory_bytes=4 * GB, device_memory_bytes=4 * GB)
    board = Board(Capacity(pools=(Pool(name="cpu", kind="gpu", nodes=(gpus,)),)))
    assert board.cache("cpu", 100 * GB) and not board.cache("nowhere", 1)
    assert board.seat("a", spec("a", memory=4 * GB).configurations[0]) is not None, "all of the GPU is left"


def files(name, gigabytes, cold_s=5.0, wake_s=1.0, **more):
    """A pipeline whose file was measured."""
    one = spec(name, key=f"v-{name}", wake_s=wake_s, **more)
    profile = Profile(file_bytes=gigabytes * GB, load_s=wake_s, load_cold_s=cold_s)
    return replace(one, configurations=(replace(one.configurations[0], profile=profile),))


def test_files_sleep_in_the_memory_that_is_left_those_that_save_most_first():
    now = state(make_capacity(2, memory=5 * GB), files("a", 2), files("b", 2, cold_s=9.0), files("c", 2, weight=3.0))
    assert decide(now).asleep == ("v-b", "v-c")
    assert decide(replace(now, capacity=make_capacity(2, memory=10 * GB))).asleep == ("v-a", "v-b", "v-c")
    forgotten = replace(now, demands={"c": load(0, idle_for_s=1000.0, concurrency=0.0)})
    assert decide(forgotten).asleep == ("v-a", "v-b"), "who was called last is called next"


def test_a_file_of_one_that_runs_or_rests_or_loads_as_fast_from_disk_needs_no_memory_of_its_own():
    running = (runs("r1", "a", 0, key="v-a", in_flight=1), rests("r2", "b", key="v-b"))
    now = state(
        make_capacity(2), files("a", 1), files("b", 1), files("c", 1, cold_s=1.0), files("d", 1),
        demands={"a": load(1), "b": IDLE}, running=running,
    )  # fmt: skip
    assert decide(now).resting == ("r2",) and decide(now).asleep == ("v-d",)


def test_who_rests_comes_before_whose_file_sleeps():
    now = state(
        make_capacity(1, memory=2 * GB), spec("a"), files("b", 2, cold_s=99.0),
        demands={"a": IDLE, "b": IDLE}, running=(rests("r1", "a"),),
    )  # fmt: skip
    assert decide(now).resting == ("r1",) and decide(now).asleep == ()
