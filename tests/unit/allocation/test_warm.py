"""Replicas that gave their devices up and stay loaded, in the simulator: how soon they serve, and in whose memory."""

from __future__ import annotations

import numpy as np

from headgate.allocation.simulator import kernel
from headgate.allocation.simulator.run import Rules, View, run
from headgate.allocation.simulator.warm import Warm
from headgate.allocation.simulator.world import Discipline, Requests, World


def make(at: list[list[float]]) -> World:
    requests = [Requests(at=np.array(one), work=np.full(len(one), 0.5)) for one in at]
    return World([Discipline()] * len(at), requests, 12, turns=False)


def warm(pipelines: int, memory: int = 100, **more: object) -> Warm:
    told: dict[str, object] = {
        "rest_s": (60.0,) * pipelines,
        "weight": (1.0,) * pipelines,
        "replica_bytes": (10,) * pipelines,
    }
    told |= {"cap": (3,) * pipelines, "start_s": 5.0, "wake_s": 0.1}
    return Warm(memory_bytes=memory, **told | more)  # type: ignore[arg-type]


class Course:
    """A policy that says what was written down; remembers what there was."""

    def __init__(self, course: dict[float, list[int]]) -> None:
        self.course, self.seen = course, []

    def decide(self, view: View) -> np.ndarray:
        stage, owner = view.world.places.stage, view.world.owner
        self.seen.append((view.now, owner[stage == kernel.IDLE].tolist(), int(np.count_nonzero(stage))))
        return np.array(self.course[max(at for at in self.course if at <= view.now)])


def play(world: World, course: dict[float, list[int]], keeps: Warm, budget: int = 1, until: float = 100.0) -> Course:
    policy = Course(course)
    rules = Rules(budget=budget, start_s=5.0, decide_s=1.0, warm=keeps)
    account = run(world, policy, rules, until, course[0.0])
    assert account.most <= budget and account.over_s == 0.0
    return policy


def test_who_is_loaded_serves_again_at_once_on_devices_that_were_anothers() -> None:
    world = make([[20.0], [10.0]])
    play(world, {0.0: [1, 0], 5.0: [0, 1], 15.0: [1, 0]}, warm(2))
    assert world.latency[0] == 0.5  # warm since 5 s, asked for at 15 s
    assert world.latency[1] == 0.5
    cold = make([[16.0], []])
    play(cold, {0.0: [1, 0], 5.0: [0, 1], 15.0: [1, 0]}, warm(2, memory=10))
    assert cold.latency[0] == 4.5  # its memory went to the other one


def test_nobody_rests_longer_than_he_may() -> None:
    for rest_s in (0.0, 10.0, 30.0):
        policy = play(make([[], []]), {0.0: [1, 0], 5.0: [0, 0]}, warm(2, rest_s=(rest_s, 0.0)))
        resting = [now for now, idle, _ in policy.seen if idle]
        assert resting == np.arange(6.0, 5.0 + rest_s).tolist()


def test_memory_is_left_to_who_serves_and_then_to_who_is_worth_most() -> None:
    course = {0.0: [1, 1, 0], 5.0: [0, 1, 0], 20.0: [0, 0, 0], 30.0: [0, 0, 2]}
    policy = play(make([[], [], []]), course, warm(3, memory=20, rest_s=(90.0,) * 3), budget=2)
    idle = {now: names for now, names, _ in policy.seen}
    assert idle[25.0] == [0, 1] and idle[32.0] == []
    course[30.0] = [0, 0, 1]
    policy = play(make([[], [], []]), course, warm(3, memory=20, rest_s=(90.0,) * 3), budget=2)
    assert {now: names for now, names, _ in policy.seen}[32.0] == [1]  # it was called later
    heavy = warm(3, memory=20, rest_s=(90.0,) * 3, weight=(9.0, 1.0, 1.0))
    policy = play(make([[], [], []]), course, heavy, budget=2)
    assert {now: names for now, names, _ in policy.seen}[32.0] == [0]


def test_no_more_rest_than_the_cap_leaves() -> None:
    course = {0.0: [3, 0], 5.0: [0, 3], 10.0: [1, 2]}
    policy = play(make([[], []]), course, warm(2, cap=(3, 3)), budget=3)
    idle = {now: sorted(names) for now, names, _ in policy.seen}
    assert idle[8.0] == [0, 0, 0] and idle[20.0] == [0, 0, 1]
    assert all(there <= 6 for _, _, there in policy.seen)
