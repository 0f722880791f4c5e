"""A pipeline of several models: replicas of each where there is room; one that fails leaves its work to others."""

from dataclasses import replace

import pytest

from headgate.allocation.capacity import Capacity, Pool
from headgate.control.node_plan import NodePlan, PlannedPipeline
from headgate.core.errors import ConfigError, FloorsDoNotFit
from tests.unit.control.world import World, make_capacity, make_model


def plan(fast: int = 1, slow: int = 2, **more) -> NodePlan:
    """Pipeline `p` may run as model `fast` in the pool `fast` and as model `slow` in the pool `cpu`."""
    pools = [make_capacity(slow).pools[0], replace(make_capacity(max(fast, 1)).pools[0], name="fast")]
    capacity = Capacity(pools=tuple(Pool(name=one.name, kind="cpu", nodes=one.nodes) for one in pools))
    models = {"fast": replace(make_model("fast", digest="sha256:2"), pool="fast"), "slow": make_model("slow")}
    pipeline = PlannedPipeline(name="p", models=("fast", "slow"), **{"cap": 4, "warm_s": 0.0, **more})
    return NodePlan(capacity=capacity, models=models, pipelines=(pipeline,))


async def test_the_best_comes_first_and_load_brings_the_others():
    async with World(plan()) as world:
        world.work = {"p": (1, 0)}
        await world.run(1.0)
        assert [one.model for one in world.fleet.members()] == ["fast"]
        world.work = {"p": (20, 4)}
        await world.run(2.0)
        assert sorted(one.model for one in world.fleet.members()) == ["fast", "slow", "slow"]
        route = world.tables[-1].pipelines["p"]
        assert (route.model, route.versions, route.engines) == ("fast", ("sha256:2", "sha256:1"), ("stub", "stub"))


async def test_one_that_fails_leaves_its_work_to_the_others_and_the_pipeline_is_not_blocked():
    async with World(plan()) as world:
        world.fleet.failing = {"fast"}
        world.work = {"p": (1, 0)}
        await world.run(60.0)
        assert [one.model for one in world.fleet.members() if one.stage == "ready"] == ["slow"]
        assert world.reconciler.faults.failures("p") == 1, "nobody needs it while the other serves"
        assert world.tables[-1].pipelines["p"].blocked is None
        world.fleet.failing = set()
        world.work = {"p": (20, 4)}
        await world.run(70.0)
        assert "fast" in {one.model for one in world.fleet.members()}


async def test_all_that_fail_block_it():
    async with World(plan()) as world:
        world.fleet.failing = {"p"}
        world.work = {"p": (1, 0)}
        await world.run(150.0)
        assert "times in a row" in world.tables[-1].pipelines["p"].blocked


async def test_a_reload_that_adds_a_model_keeps_the_replicas_of_the_others():
    both = plan()
    alone = replace(both, pipelines=(replace(both.pipelines[0], models=("slow",)),))
    async with World(alone) as world:
        world.work = {"p": (1, 0)}
        await world.run(1.0)
        [before] = [one.id for one in world.fleet.members()]
        told = world.reconciler.apply_plan(both)
        assert told["adjusted"] == ["p"] and not told["replaced"]
        world.work = {"p": (20, 4)}
        await world.run(2.0)
        kept = {one.id: one.model for one in world.fleet.members()}
        assert kept[before] == "slow" and sorted(kept.values()) == ["fast", "slow", "slow"]


def test_floors_may_lie_in_several_pools():
    plan(floor=3).check()
    with pytest.raises(FloorsDoNotFit, match="replica 4 of 4 finds no place in pool 'fast' or 'cpu'"):
        plan(floor=4).check()


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"task": "embed"}, "for 'generate' and 'slow' for 'embed'|for 'embed' and"),
        ({"task": "embed", "both": True}, "vectors of different versions"),
    ],
)
def test_models_that_cannot_answer_the_same_requests_are_refused(facts, words):
    given = plan()
    both = facts.pop("both", False)
    models = {
        name: replace(one, version=replace(one.version, **facts)) if both or name == "slow" else one
        for name, one in given.models.items()
    }
    with pytest.raises(ConfigError, match=words) as caught:
        replace(given, models=models).check()
    assert caught.value.param == "pipelines.p.model"


def test_the_same_way_under_two_names_is_refused():
    given = plan()
    same = replace(given.models["slow"], name="again")
    twice = replace(given.pipelines[0], models=("slow", "again"))
    with pytest.raises(ConfigError, match="'again' runs exactly as one named before it"):
        replace(given, models={**given.models, "again": same}, pipelines=(twice,)).check()
