"""Capacity that changes in a run, and the loads and figures of the stress lane."""

import numpy as np
import pytest

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
