"""Capacity that changes in a run, and the loads and figures of the stress lane."""

from dataclasses import replace

import numpy as np
import pytest
from benchmarks.lanes import lane_x

from headgate.allocation.simulator import kernel
from headgate.allocation.simulator.run import Change, Rules, run
from headgate.allocation.simulator.world import Discipline, Requests, World


def make(at, work, *, pipelines=1, places=12, **service) -> World:
    requests = [Requests(at=np.array(at, float), work=np.array(work, float)) for _ in range(pipelines)]
    return World([Discipline(**service)] * pipelines, requests, places, turns=False)


class Wants:
    """Always wants the same; remembers what room it was told of."""

    def __init__(self, *counts) -> None:
        self.counts = np.array(counts)
        self.told = []

    def decide(self, view):
        self.told.append((view.now, view.budget))
        return self.counts


def test_a_sudden_loss_takes_its_part_of_every_pipeline_and_nothing_is_started_beyond_it():
    world, policy = make([], [], pipelines=2), Wants(6, 3)
    rules = Rules(budget=9, start_s=1.0, decide_s=1.0, changes=(Change(at_s=5.0, budget=6, sudden=True),))
    account = run(world, policy, rules, 20.0, (6, 3))
    assert account.over_s == 0.0 and account.most == 9
    assert world.count(kernel.SERVING).sum() == 6 and (world.count(kernel.SERVING) > 1).all()
    assert [budget for now, budget in policy.told if now < 5.0] == [9] * 5
    assert {budget for now, budget in policy.told if now >= 5.0} == {6}


def test_what_a_lost_replica_worked_on_is_answered_by_another():
    world = make([0.0, 0.5], [3.0, 1.0], late_s=9.0)
    rules = Rules(budget=2, start_s=1.0, decide_s=1.0, changes=(Change(at_s=1.0, budget=1, sudden=True),))
    run(world, Wants(2), rules, 20.0, (2,))
    # Place 0 is lost after one of three seconds; the other place ends its own at 1.5, then makes the first anew.
    assert world.latency.tolist() == [pytest.approx(4.5), pytest.approx(1.0)]


def test_a_lost_replica_with_a_full_queue_loses_its_request():
    world = make([0.0, 0.1, 0.2], [9.0, 1.0, 1.0], queue=2)
    world.start(0, 0.0)
    world.advance(1.0)
    world.lose(0)
    assert np.isinf(world.latency[0]) and world.take_seen()[0, kernel.DROPPED] == 1
    world.start(0, 0.0)
    world.advance(20.0)
    assert world.latency[1:].tolist() == [pytest.approx(1.9), pytest.approx(2.8)]


def test_a_budget_that_shrinks_is_kept_but_for_what_drains_even_if_the_policy_wants_more():
    world = make([3.5] * 6, [8.0] * 6)
    rules = Rules(budget=6, start_s=1.0, rest_s=30.0, decide_s=1.0, changes=(Change(at_s=5.0, budget=4),))
    account = run(world, Wants(6), rules, 20.0, (6,))
    assert account.over_kept_s == 0.0
    assert 5.0 <= account.over_s <= 8.0  # two finish at 11.5 what they began at 3.5
    assert np.isfinite(world.latency).all() and np.count_nonzero(world.places.stage) == 4


def test_room_that_comes_back_is_used():
    changes = (Change(at_s=5.0, budget=2, sudden=True), Change(at_s=10.0, budget=4))
    world = make([], [])
    account = run(world, Wants(4), Rules(budget=4, start_s=1.0, decide_s=1.0, changes=changes), 20.0, (4,))
    assert world.count(kernel.SERVING).sum() == 4 and account.starts == 2


def test_the_same_seed_makes_the_same_cases_and_loads_fit_the_budget():
    one, other = (lane_x.make_cases.__wrapped__(seed) for seed in (1, 2))
    again = lane_x.make_cases.__wrapped__(1)
    assert all(np.array_equal(case.rates, again[name].rates) for name, case in one.items())
    assert not np.array_equal(one["step"].rates, other["step"].rates)
    for name, case in one.items():
        busy = case.rates[: int(lane_x.EVENT_S)].sum(axis=1).mean() * lane_x.WORK_S
        assert 0.3 < busy / lane_x.BUDGET < 0.7, name
    assert one["step"].rates[601, 0] == pytest.approx(10 * one["step"].rates[599, 0])


def test_requests_are_drawn_at_their_rates_with_the_work_that_is_told():
    rates = np.tile([5.0, 20.0], (400, 1))
    few, many = lane_x.draw(rates, seed=1)
    assert len(few.at) == pytest.approx(2000, rel=0.1) and len(many.at) == pytest.approx(8000, rel=0.05)
    assert np.all(np.diff(many.at) >= 0.0)
    assert many.work.mean() == pytest.approx(lane_x.WORK_S, rel=0.05)
    assert many.work.var() / lane_x.WORK_S**2 == pytest.approx(lane_x.VARIATION, rel=0.1)
    assert lane_x.service(0.7).mean_s == pytest.approx(0.7 * lane_x.WORK_S)


def test_recovery_is_when_a_minute_begins_in_which_nearly_all_are_in_time():
    at = np.arange(0.0, lane_x.SECONDS, 1.0)
    world = make(at, np.ones(len(at)))
    world.latency[:] = np.where((at >= 600.0) & (at < 700.0), 9.0, 0.1)
    assert lane_x.recovery(world, 600.0) == pytest.approx(100.0)
    assert lane_x.recovery(world, 700.0) == 0.0
    world.latency[:] = np.nan
    assert lane_x.recovery(world, 600.0) == lane_x.SECONDS - 600.0


@pytest.mark.parametrize("name", ["node_loss", "node_drain", "no_forecast"])
def test_the_pilot_stays_within_its_room_whatever_happens(name):
    case = lane_x.make_cases(1)[name]
    changes = tuple(replace(change, at_s=change.at_s - 540.0) for change in case.changes)
    short = replace(case, rates=case.rates[540:780], changes=changes)
    found = lane_x.measure(lane_x.Headgate, short, seed=1)
    assert found["over_kept_s"] == 0.0 and found["over_s"] <= 5.0
    assert found["late"] < 0.3


def test_a_blind_pilot_takes_what_came_last_for_all_that_comes():
    pilot = lane_x.Headgate(lane_x.make_cases(1)["no_forecast"])
    pilot.forecasts.learn({"a": 30.0, "b": 0.0}, 5.0)
    assert isinstance(pilot.forecasts, lane_x.LastValue)
    near, far = pilot.forecasts.forecast("a", [None, None])
    assert set(near) == set(far) == {6.0} and len(near) == 7
    assert set(pilot.forecasts.forecast("b", [None])[0]) == {0.0}
    assert not isinstance(lane_x.Headgate(lane_x.make_cases(1)["opposed"]).forecasts, lane_x.LastValue)


@pytest.mark.parametrize("told", [0.7, 1.3])
def test_a_pilot_that_is_told_wrong_service_times_learns_the_true_ones(told: float) -> None:
    case = lane_x.make_cases(1)["opposed"]
    case = replace(case, rates=case.rates[:900])
    right, wrong = (lane_x.measure(lane_x.Headgate, replace(case, told=one), 1)["late"] for one in (1.0, told))
    assert wrong < 1.4 * right
