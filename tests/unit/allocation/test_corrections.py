"""Profiles corrected by what is seen: who serves better than it was measured to gets more, and nobody else."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.allocation.corrections import Corrections, Served
from headgate.allocation.demand import Demand
from headgate.allocation.pipeline import Configuration, PipelineSpec
from headgate.allocation.policy import decide
from headgate.allocation.profile import Profile
from headgate.allocation.recording import build_state, plain_state
from headgate.allocation.speeds import expect_s, relative_speed
from headgate.allocation.state import State
from tests.unit.allocation.test_policy import GB, make_capacity

SLOW = ((1, 1.0), (2, 1.6), (4, 2.8))


def way(key: str, service_s: float | None = 1.0, pool: str = "cpu", slots: int = 4, **more) -> Configuration:
    profile = Profile(service_s=service_s, slow=SLOW if slots == 4 else (), **more)
    return Configuration(key=key, pool=pool, share=1.0, slots=slots, memory_bytes=GB, wake_s=0.1, profile=profile)


def two(a: Configuration, b: Configuration) -> dict[str, PipelineSpec]:
    return {"p": PipelineSpec(name="p", configurations=(a, b), cap=8)}


class Replicas:
    """One pipeline's replicas, and requests of one length (exponential) on them; seconds pass one by one."""

    def __init__(self, specs: dict[str, PipelineSpec]) -> None:
        self.specs = specs
        self.corrections = Corrections()
        self._rng = np.random.default_rng(7)

    def serve(self, seconds: int, at_once: float = 1.0, **means_s: float) -> dict[str, float]:
        """Three requests a second in each configuration named, with its mean seconds; the factors then."""
        for _ in range(seconds):
            served = {("p", key): self._some(mean_s, at_once) for key, mean_s in means_s.items()}
            self.corrections.learn(self.specs, served, 1.0)
        return dict(self.corrections.look("p"))

    def _some(self, mean_s: float, at_once: float) -> Served:
        settled = int(self._rng.poisson(3.0))
        busy_s = float(self._rng.exponential(mean_s, settled).sum())
        return Served(settled=settled, busy_s=busy_s, together_s=at_once * busy_s)


def test_nothing_is_told_of_who_served_nobody():
    world = Replicas(two(way("a"), way("b")))
    assert world.serve(10) == {} and world.corrections.look("q") == {}
    assert Demand().corrections == {}


def test_what_all_have_in_common_is_told_of_all_and_what_is_one_s_own_of_it():
    world = Replicas(two(way("a", 1.0), way("b", 0.5)))
    told = world.serve(300, a=3.0, b=3.0)
    assert told["a"] == pytest.approx(3.0, rel=0.2) and told["b"] == pytest.approx(6.0, rel=0.2)
    assert told["b"] / told["a"] == pytest.approx(2.0, rel=0.15)


def test_one_that_was_not_seen_is_what_the_others_are():
    told = Replicas(two(way("a", 1.0), way("b", 0.5))).serve(120, a=2.0)
    assert told["a"] == pytest.approx(2.0, rel=0.25) and told["b"] == pytest.approx(told["a"], rel=0.1)


def test_longer_requests_are_no_slower_configuration():
    world = Replicas(two(way("a", 1.0), way("b", 0.5)))
    before = world.serve(300, a=1.0, b=1.0)
    after = world.serve(300, a=3.0)
    assert after["a"] == pytest.approx(3.0, rel=0.25)
    assert after["b"] / after["a"] == pytest.approx(before["b"] / before["a"], rel=0.25)


def test_a_configuration_that_takes_over_is_compared_with_the_one_before():
    world = Replicas(two(way("a", 1.0), way("b", 0.5)))
    world.serve(300, a=1.0)
    told = world.serve(60, b=1.0)
    assert told["b"] / told["a"] == pytest.approx(2.0, rel=0.25)


def test_what_is_seen_no_more_fades_and_is_bounded():
    world = Replicas(two(way("a", 1.0), way("b", 1.0)))
    told = world.serve(300, a=1.0, b=40.0)
    assert told["b"] / told["a"] <= 16.0 + 1e-9
    for _ in range(4):
        world.corrections.learn(world.specs, {}, 7200.0)
    told = dict(world.corrections.look("p"))
    assert told["b"] / told["a"] == pytest.approx(1.0, abs=0.2)


def test_company_on_a_replica_is_no_slowness():
    world = Replicas(two(way("a", 1.0), way("b", 1.0)))
    told = world.serve(200, at_once=4.0, a=2.8)
    assert told["a"] == pytest.approx(1.0, rel=0.15)


def test_chance_alone_changes_little_and_seldom():
    world = Replicas(two(way("a", 1.0), way("b", 0.5)))
    world.serve(600, a=1.0, b=0.5)
    ratios = []
    for _ in range(1800):
        told = world.serve(1, a=1.0, b=0.5)
        ratios.append(round(told["b"] / told["a"], 9))
    changes = sum(one != other for one, other in pairwise(ratios))
    assert changes < 60 and min(ratios) > 0.75 and max(ratios) < 1.35


def test_what_is_known_goes_along_when_a_configuration_is_added_and_leaves_with_its_pipeline():
    world = Replicas(two(way("a", 1.0), way("b", 0.5)))
    before = world.serve(300, a=1.0, b=1.0)
    new = PipelineSpec(name="p", configurations=(way("c", 0.2), way("b", 0.5), way("a", 1.0)))
    world.specs = {"o": replace(new, name="o"), "p": new}
    told = world.serve(5, a=1.0)
    assert list(told) == ["c", "b", "a"] and world.corrections.look("o") == {}
    assert told["b"] / told["a"] == pytest.approx(before["b"] / before["a"], rel=0.1)
    world.specs = {}
    world.serve(1)
    assert world.corrections.look("p") == {}


def test_what_pipelines_are_listed_beside_makes_no_difference():
    rng, served = np.random.default_rng(3), []
    for _ in range(60):
        busy = rng.exponential(1.0, (3, 2, 10)).sum(axis=-1)
        served.append({
            (f"p{i}", key): Served(settled=10, busy_s=float(busy[i, j]), together_s=float(busy[i, j]))
            for i in range(3) for j, key in enumerate("ab")
        })  # fmt: skip
    specs = {f"p{i}": replace(two(way("a"), way("b"))["p"], name=f"p{i}") for i in range(3)}
    one, other = Corrections(), Corrections()
    for told in served:
        one.learn(specs, told, 1.0)
        other.learn(dict(reversed(specs.items())), dict(reversed(told.items())), 1.0)
    assert all(one.look(name) == other.look(name) != {} for name in specs)


@given(
    service_s=st.tuples(st.floats(0.01, 10.0), st.floats(0.01, 10.0)),
    slots=st.tuples(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4, 8])),
    tokens=st.booleans(),
)
def test_expectations_and_relative_speed_are_one_thing(service_s, slots, tokens):
    a, b = (
        way(key, told_s, slots=many, decode_tokens_per_s=((1, 10.0 / told_s), (8, 40.0 / told_s)) if tokens else ())
        for key, told_s, many in zip("ab", service_s, slots, strict=True)
    )
    at_full = [one.slots / expect_s(a, one, one.slots) for one in (a, b)]
    assert at_full[1] / at_full[0] == pytest.approx(relative_speed(a, b))
    assert expect_s(a, a, 1.0) == service_s[0]
    assert expect_s(a, b, 1.0) <= expect_s(a, b, slots[1]) == expect_s(a, b, slots[1] + 5.0)


# -- what a decision makes of it ---------------------------------------------------------------------------------------


def choosing(corrections: dict[str, float]) -> State:
    """One pipeline with a way `a` and a way `b` that is profiled 1.5 times as fast, in two pools of one price."""
    capacity = make_capacity(4)
    (cpu,) = capacity.pools
    pools = tuple(replace(cpu, name=name, price_per_hour=1.0, elastic=True) for name in ("x", "y"))
    specs = two(way("a", 1.0, pool="x"), way("b", 1.0 / 1.5, pool="y"))
    demand = Demand(concurrency=3.0, arrivals_per_s=3.0, service_s=1.0, corrections=corrections)
    return State(at=1000.0, capacity=replace(capacity, pools=pools), pipelines=(specs["p"],), demands={"p": demand})


def chosen(state: State) -> list[str]:
    return [seat.configuration for seat in decide(state).seats]


def test_one_seen_to_be_twice_as_slow_as_profiled_is_preferred_no_more():
    specs = two(way("a", 1.0), way("b", 1.0 / 1.5))["p"]
    assert relative_speed(*specs.configurations) == pytest.approx(1.5)
    assert relative_speed(*specs.configurations, {"a": 3.0, "b": 6.0}) == pytest.approx(0.75)
    assert relative_speed(*specs.configurations, {"b": 2.0}) == pytest.approx(1.5), "nothing to compare it with"
    assert chosen(choosing({})) == chosen(choosing({"a": 1.0, "b": 1.0})) == ["b", "b"]
    assert chosen(choosing({"a": 1.0, "b": 2.0})) == ["a", "a", "a"]


def test_what_is_observed_and_decided_on_comes_to_the_same():
    specs = two(way("a", 1.0, pool="x"), way("b", 1.0 / 1.5, pool="y"))
    told = Replicas(specs).serve(300, a=1.0, b=2.0 / 1.5)
    assert set(chosen(choosing(told))) == {"a"}
    assert set(chosen(choosing(Replicas(specs).serve(300, a=1.0, b=1.0 / 1.5)))) == {"b"}


@given(factor=st.floats(0.25, 4.0))
def test_a_pipeline_of_one_configuration_is_decided_on_as_before(factor):
    told = choosing({})
    (spec,) = told.pipelines
    alone = replace(told, pipelines=(replace(spec, configurations=spec.configurations[:1]),))
    corrected = replace(alone, demands={"p": replace(alone.demands["p"], corrections={"a": factor})})
    assert decide(corrected) == decide(alone)


def test_a_corrected_state_survives_its_record_and_an_old_record_has_no_corrections():
    state = choosing({"b": 2.0, "a": 1.0})
    told = plain_state(state)
    assert build_state(told) == state and list(told["demands"]["p"]["corrections"]) == ["a", "b"]
    del told["demands"]["p"]["corrections"]
    assert build_state(told) == choosing({})
    assert math.isfinite(decide(build_state(told)).gap_to_bound)
