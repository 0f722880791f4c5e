import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headgate.allocation.capacity import Capacity, Node, Pool
from headgate.allocation.packing import check_floors
from headgate.allocation.pipeline import Configuration, PipelineSpec
from headgate.allocation.plan import plan_moves
from headgate.allocation.policy import decide
from headgate.core.errors import FloorsDoNotFit
from tests.simulation.house import House, check_budget, check_prefixes

GB = 10**9
SETTINGS = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))


def make_capacity(cores: int, share: float | None = None, memory: int = 64 * GB) -> Capacity:
    node = Node(name="here", devices=tuple(range(cores)), share=share or float(cores), memory_bytes=memory)
    return Capacity(pools=(Pool(name="cpu", kind="cpu", nodes=(node,)),))


def make_spec(name: str, *, share: float = 1.0, memory: int = GB, slots: int = 4, **more) -> PipelineSpec:
    version = more.pop("key", "v1")
    one = Configuration(
        key=version, pool="cpu", share=share, slots=slots, memory_bytes=memory, wake_s=more.pop("wake_s", 0.2)
    )
    return PipelineSpec(name=name, configurations=(one,), **{"cap": 8, **more})


@st.composite
def houses(draw):
    cores = draw(st.integers(1, 4))
    capacity = make_capacity(
        cores,
        share=draw(st.sampled_from([float(cores), max(1.0, cores - 0.5)])),
        memory=draw(st.sampled_from([64 * GB, 3 * GB])),
    )
    specs = []
    for number in range(draw(st.integers(1, 5))):
        spec = make_spec(
            f"p{number}",
            share=draw(st.sampled_from([0.1, 0.25, 1 / 3, 0.5, 0.6, 1.0])),
            memory=draw(st.sampled_from([GB // 10, GB])),
            slots=draw(st.integers(1, 4)),
            floor=draw(st.integers(0, 2)),
            weight=draw(st.sampled_from([0.5, 1.0, 3.0])),
            idle_s=draw(st.sampled_from([0.0, 1.0, 30.0])),
            priority=draw(st.sampled_from(["guaranteed", "burst", "best_effort"])),
        )
        specs.append(spec)
    try:
        check_floors(capacity, specs)
    except FloorsDoNotFit:
        specs = [replace(spec, floor=0) for spec in specs]
    return House(capacity=capacity, pipelines=tuple(specs))


@SETTINGS
@given(houses(), st.integers(0, 2**32))
def test_the_budget_holds_and_floors_come_first_whatever_happens(house, seed):
    chance = random.Random(seed)
    for _ in range(40):
        load = {
            spec.name: (chance.choice((0, 0, 1, 9)), chance.choice((0, 0, 2, 7)), chance.random())
            for spec in house.pipelines
        }
        for name in list(house.running):
            if chance.random() < 0.02:
                del house.running[name]  # it crashed
            else:
                busy = chance.choice((0, 1))
                house.running[name] = replace(house.running[name], in_flight=busy)
        allocation = house.tick(load)
        counts = allocation.replicas
        for spec in house.pipelines:
            assert spec.floor <= counts.get(spec.name, 0) <= spec.cap
        check_budget(house.capacity, allocation.seats)


@SETTINGS
@given(houses(), st.integers(0, 2**32))
def test_floors_answer_after_a_few_ticks_under_any_load(house, seed):
    chance = random.Random(seed)
    for _ in range(12):
        house.tick({spec.name: (chance.choice((0, 50)), 0, 1.0) for spec in house.pipelines})
    for spec in house.pipelines:
        assert house.answering(spec.name) >= spec.floor


@SETTINGS
@given(houses(), st.data())
def test_who_waits_gets_a_replica_when_there_is_capacity(house, data):
    """Everyone else is idle, so capacity exists: floors of others stay, surplus of others goes."""
    house.pipelines = tuple(replace(spec, floor=0) for spec in house.pipelines)
    for _ in range(8):
        house.tick({spec.name: (3, 1, 0.5) for spec in house.pipelines})
    waiting = data.draw(st.sampled_from([spec.name for spec in house.pipelines]))
    for tick in range(30):
        house.tick({waiting: (1, 0, tick * 0.25)})
        if house.answering(waiting):
            return
    pytest.fail(f"{waiting} waited for 30 ticks beside idle ones")


@SETTINGS
@given(houses(), st.integers(0, 2**32))
def test_nobody_starves_when_all_wait_for_too_little(house, seed):
    house.pipelines = tuple(replace(spec, floor=0, priority="burst") for spec in house.pipelines)
    served, waits = set(), {spec.name: 0.0 for spec in house.pipelines}
    for _ in range(100):
        house.tick({name: (2, 0, wait) for name, wait in waits.items()})
        for name in waits:
            waits[name] = 0.0 if house.answering(name) else waits[name] + house.tick_s
            served |= {name} if house.answering(name) else set()
    assert served == set(waits)


def test_a_big_one_gets_its_turn_among_small_ones_of_whom_one_always_just_got_it():
    weights = (3.0, 3.0, 3.0, 0.5, 1.0)
    sizes = ((0.1, GB // 10), (0.1, GB), (0.1, GB), (1.0, GB // 10), (0.1, GB))
    specs = tuple(
        make_spec(f"p{number}", share=share, memory=memory, slots=2, weight=weight, idle_s=0.0)
        for number, (weight, (share, memory)) in enumerate(zip(weights, sizes, strict=True))
    )
    house = House(capacity=make_capacity(1, memory=3 * GB), pipelines=specs)
    waits, served = {spec.name: 0.0 for spec in specs}, dict.fromkeys((spec.name for spec in specs), 0)
    for _ in range(200):
        house.tick({name: (2, 0, wait) for name, wait in waits.items()})
        for name in waits:
            waits[name] = 0.0 if house.answering(name) else waits[name] + house.tick_s
            served[name] += bool(house.answering(name))
    assert min(served.values()) > 10, served


@SETTINGS
@given(houses(), st.data())
def test_constant_load_causes_no_moves_after_it_settled(house, data):
    load = {spec.name: (0, data.draw(st.integers(0, 6)), 0.0) for spec in house.pipelines}
    house.pipelines = tuple(replace(spec, idle_s=1.0) for spec in house.pipelines)
    everyone_fits = False
    for _ in range(40):
        allocation = house.tick(load)
        everyone_fits = not allocation.unmet
    before = house.moves
    for _ in range(40):
        house.tick(load)
    if everyone_fits:
        assert house.moves == before


def test_noisy_equal_load_moves_little():
    chance = random.Random(7)
    specs = tuple(make_spec(name, slots=2, idle_s=5.0) for name in "ab")
    house = House(capacity=make_capacity(4), pipelines=specs)
    for _ in range(4 * 60 * 5):
        house.tick({name: (0, max(0, int(chance.gauss(4, 2))), 0.0) for name in "ab"})
    assert house.moves <= 4 + 30, "at most six moves a minute"


@SETTINGS
@given(houses(), st.integers(0, 2**32))
def test_the_order_of_pipelines_and_replicas_does_not_matter(house, seed):
    chance = random.Random(seed)
    for _ in range(5):
        house.tick({spec.name: (chance.randint(0, 5), chance.randint(0, 5), 0.1) for spec in house.pipelines})
    state = house.state()
    pipelines, running = list(state.pipelines), list(state.running)
    chance.shuffle(pipelines)
    chance.shuffle(running)
    shuffled = replace(state, pipelines=tuple(pipelines), running=tuple(running))
    one, other = decide(state), decide(shuffled)
    assert one.replicas == other.replicas
    assert set(one.seats) == set(other.seats)


@SETTINGS
@given(houses(), st.integers(0, 2**32))
def test_more_weight_never_gets_less(house, seed):
    chance = random.Random(seed)
    load = {spec.name: (chance.randint(0, 5), chance.randint(0, 9), 0.1) for spec in house.pipelines}
    pipelines = tuple(
        replace(spec, floor=0, configurations=(replace(spec.configurations[0], share=1.0),), priority="burst")
        for spec in house.pipelines
    )
    counts = []
    for weight in (1.0, 4.0):
        first = replace(pipelines[0], weight=weight)
        fresh = House(capacity=house.capacity, pipelines=(first, *pipelines[1:]))
        counts.append(fresh.tick(load).replicas.get(first.name, 0))
    assert counts[0] <= counts[1]


@SETTINGS
@given(houses(), houses(), st.integers(0, 2**32))
def test_any_change_of_capacity_and_pipelines_has_a_safe_plan(before, after, seed):
    chance = random.Random(seed)
    for _ in range(6):
        before.tick({spec.name: (chance.randint(0, 5), 0, 0.1) for spec in before.pipelines})
    before.pipelines = after.pipelines
    state = before.state()
    plan = plan_moves(state.running, decide(state).seats, before.capacity)
    check_prefixes(before.capacity, state.running, plan)


def test_a_change_of_model_never_leaves_a_pipeline_without_an_answer():
    for cores in (1, 2, 3):
        house = House(capacity=make_capacity(cores), pipelines=(make_spec("a", floor=2 if cores > 1 else 1),))
        for _ in range(6):
            house.tick({})
        assert house.answering("a") == house.pipelines[0].floor
        house.pipelines = (replace(make_spec("a", key="v2"), floor=house.pipelines[0].floor),)
        for _ in range(20):
            house.tick({})
            assert house.answering("a") >= 1 or cores == 1
        assert {one.configuration for one in house.running.values()} == {"v2"}
        assert len(house.running) == house.pipelines[0].floor
