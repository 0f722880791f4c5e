"""A node whose replicas rest, in its loop: when devices pass on, what gateways are told, and what is not believed."""

from dataclasses import replace

from headgate.control.status import build_status
from tests.unit.control.world import World, make_capacity, make_model, make_plan

WARM = {"warm_s": 60.0}


async def test_devices_pass_to_and_fro_between_two_that_stay_loaded():
    async with World(make_plan(cores=1, a=dict(WARM), b=dict(WARM)), load_s=0.5) as world:
        for name in ("a", "b", "a", "b"):
            world.work = {name: (1, 0)}
            await world.run(4.0)
            assert len(world.ready(name)) == 1
        assert world.did("a") == ["start", "drain", "rest", "wake", "drain", "rest"]
        assert world.did("b") == ["start", "drain", "rest", "wake"]
        told = build_status(world.reconciler)
        assert [told["pipelines"][name]["warm"] for name in ("a", "b")] == [1, 0]
        assert told["pools"][0]["cores_used"] == 1.0 and told["pools"][0]["memory_bytes_used"] == 2 * 10**6
        assert told["moves"]["rest"] == 3 and told["moves"]["wake"] == 2


async def test_gateways_do_not_know_of_one_that_rests_and_hear_of_it_in_the_turn_that_wakes_it():
    async with World(make_plan(cores=1, a={"idle_s": 0.5, **WARM}), load_s=5.0) as world:
        world.work = {"a": (1, 0)}
        await world.run(7.0)
        replica = world.ready("a")[0]
        world.work = {}
        await world.run(4.0)
        assert world.did("a") == ["start", "drain", "rest"] and replica not in world.reconciler.table.replicas
        world.work = {"a": (1, 0)}
        world.report()
        await world.settle()
        assert world.reconciler.table.replicas[replica].state == "ready", "no time has passed"


async def test_nobody_rests_for_longer_than_warm_s():
    async with World(make_plan(cores=1, a={"idle_s": 0.5, "warm_s": 3.0})) as world:
        world.work = {"a": (1, 0)}
        await world.run(1.0)
        world.work = {}
        await world.run(4.0)
        assert [one.stage for one in world.fleet.members()] == ["warm"]
        await world.run(3.0)
        assert not world.fleet.members() and world.did("a")[-1] == "stop"


async def test_a_request_in_flight_keeps_its_devices_until_it_is_done():
    async with World(make_plan(cores=1, a=dict(WARM), b={"priority": "guaranteed", **WARM})) as world:
        world.work = {"a": (0, 1)}
        await world.run(2.0)
        world.in_flight = {world.ready("a")[0]: 1}
        world.work = {"a": (0, 1), "b": (3, 0)}
        await world.run(3.0)
        assert "rest" not in world.did() and not world.ready("b")
        world.in_flight = {}
        await world.run(1.0)
        assert world.did("a")[-1] == "rest" and world.ready("b")


async def test_one_that_failed_a_request_or_has_an_old_model_does_not_rest():
    async with World(make_plan(cores=2, a={"idle_s": 0.5, **WARM}, b={"idle_s": 0.5, **WARM})) as world:
        world.work = {"a": (1, 0), "b": (1, 0)}
        await world.run(2.0)
        world.suspects = tuple(world.ready("a"))
        world.work = {}
        await world.run(4.0)
        assert world.did("a")[-1] == "stop" and world.did("b")[-1] == "rest"
        models = {**world.plan.models, "b": make_model("b", digest="sha256:2")}
        world.reconciler.apply_plan(replace(world.plan, models=models))
        await world.run(1.0)
        assert not world.fleet.members()


async def test_one_that_dies_while_it_rests_is_missed_by_nobody_and_a_new_one_starts():
    async with World(make_plan(cores=1, a={"idle_s": 0.5, **WARM})) as world:
        world.work = {"a": (1, 0)}
        await world.run(2.0)
        world.work = {}
        await world.run(4.0)
        world.fleet.crash(world.fleet.members()[0].id)
        world.work = {"a": (1, 0)}
        await world.run(3.0)
        assert len(world.ready("a")) == 1 and world.did("a") == ["start", "drain", "rest", "crash", "start"]


async def test_files_of_those_that_may_be_woken_are_read_ahead_and_those_of_who_runs_are_kept():
    plan = make_plan(cores=1, a={"idle_s": 0.5}, b={}, c={})
    paths = {"a": "/models/a", "b": "/models/b", "c": ""}
    models = {
        name: replace(model, version=replace(model.version, path=paths[name], bytes=10**8, digest=f"sha256:{name}"))
        for name, model in plan.models.items()
    }
    async with World(replace(plan, models=models)) as world:
        both = {models[name].key: paths[name] for name in ("a", "b")}
        assert world.fleet.cached == both, "c has no file"
        world.work = {"a": (1, 0)}
        await world.run(2.0)
        assert world.ready("a") and world.fleet.cached == both
        status = build_status(world.reconciler)["pipelines"]
        assert [status[name]["asleep"] for name in ("a", "b")] == [False, True]
        small = replace(world.plan, capacity=make_capacity(1, memory=10**7))
        world.reconciler.apply_plan(small)
        await world.run(0.5)
        assert world.fleet.cached == {models["a"].key: "/models/a"}, "no memory for the others"
