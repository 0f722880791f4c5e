"""The simulator: queueing that can be checked by hand or by formula, and budgets that hold."""

from __future__ import annotations

import numpy as np

from headgate.allocation.simulator import kernel
from headgate.allocation.simulator.run import Rules, View, run
from headgate.allocation.simulator.world import Discipline, Requests, World


def make(at: list[float], work: list[float], *, replicas: int = 1, **service: object) -> World:
    world = World(
        [Discipline(**service)],  # type: ignore[arg-type]
        [Requests(at=np.array(at), work=np.array(work))],
        places=8,
        turns=False,
    )
    for _ in range(replicas):
        world.start(0, 0.0)
    return world


def test_one_serial_replica_answers_in_turn() -> None:
    world = make([0.0, 0.1, 5.0], [1.0, 1.0, 1.0])
    world.advance(10.0)
    assert world.latency.tolist() == [1.0, 1.9, 1.0]


def test_two_slots_share_a_replica_and_slow_each_other_down() -> None:
    world = make([0.0, 0.0], [1.0, 2.0], slots=2, depth=2, slow=(1.0, 1.5))
    world.advance(10.0)
    # Both run at 1.5: the first ends at 1.5; the second has 1 second of work left, alone.
    assert world.latency.tolist() == [1.5, 2.5]


def test_what_finds_the_queue_full_is_dropped() -> None:
    world = make([0.0, 0.1, 0.2, 0.3], [1.0] * 4, queue=1)
    world.advance(10.0)
    assert world.latency.tolist()[:2] == [1.0, 1.9]
    assert np.isinf(world.latency[2:]).all()
    assert world.take_seen()[0, kernel.DROPPED] == 2


def test_a_request_waits_for_the_first_replica_to_be_ready() -> None:
    world = make([0.0], [1.0], replicas=0)
    world.start(0, 3.0)
    world.advance(10.0)
    assert world.latency.tolist() == [4.0]


def test_a_drained_replica_finishes_what_it_has() -> None:
    world = make([0.0, 0.5], [1.0, 1.0], depth=2)
    world.advance(0.6)
    world.drain(0)
    world.advance(10.0)
    assert world.latency.tolist() == [1.0, 1.5]
    assert world.places.stage[0] == kernel.ABSENT
    assert world.places.gone_at[0] == 2.0


def test_in_steps_or_at_once_is_the_same() -> None:
    rng = np.random.default_rng(3)
    at = np.cumsum(rng.exponential(0.4, 2000))
    work = rng.exponential(1.0, 2000)
    latencies: list[list[float]] = []
    for step in (1.0, 2000.0):
        world = make(at.tolist(), work.tolist(), replicas=4, slots=2, depth=2, slow=(1.0, 1.3), queue=50)
        while world.now < 2000.0:
            world.advance(world.now + step)
        latencies.append(world.latency.tolist())
    assert latencies[0] == latencies[1]


def test_many_servers_wait_as_erlang_says() -> None:
    """M/M/3 at 80 %: the mean wait is C(3, 2.4) / (3 - 2.4) of a service time, C = 0.6472 by the Erlang C formula."""
    rng = np.random.default_rng(1)
    count = 400_000
    at = np.cumsum(rng.exponential(1 / 2.4, count))
    work = rng.exponential(1.0, count)
    world = make(at.tolist(), work.tolist(), replicas=3, queue=10_000)
    world.advance(float(at[-1]) + 100.0)
    waits = world.latency - work
    assert abs(waits.mean() - 0.6472 / 0.6) < 0.05


class Swap:
    """Everything to one pipeline, then everything to the other."""

    def decide(self, view: View) -> list[int]:
        return [6, 0] if int(view.now / 30) % 2 == 0 else [0, 6]


def test_a_run_never_goes_over_its_budget() -> None:
    rng = np.random.default_rng(2)
    requests = [
        Requests(at=np.sort(rng.uniform(0, 300, 900)), work=rng.exponential(0.5, 900)),
        Requests(at=np.sort(rng.uniform(0, 300, 900)), work=rng.exponential(0.5, 900)),
    ]
    world = World([Discipline(depth=4), Discipline(depth=4)], requests, places=20, turns=True)
    account = run(world, Swap(), Rules(budget=6, start_s=2.0, rest_s=3.0, wake_s=0.5), 300.0, [3, 3])
    assert account.most == 6
    assert account.starts > 50
    assert not np.isnan(world.latency).all()
    assert account.replica_s <= 6 * 300.0


class Hand:
    """Hands the only replica over after ten seconds."""

    def decide(self, view: View) -> list[int]:
        return [1, 0] if view.now < 10.0 else [0, 1]


def test_a_released_replica_holds_its_place_while_it_rests() -> None:
    requests = [Requests(at=np.zeros(0), work=np.zeros(0)), Requests(at=np.array([0.5]), work=np.array([1.0]))]
    world = World([Discipline(), Discipline()], requests, places=4, turns=False)
    account = run(world, Hand(), Rules(budget=1, start_s=2.0, rest_s=5.0, decide_s=1.0), 30.0, [1, 0])
    assert account.most == 1
    # Released at 10, at rest until 15, started then, ready at 17, done at 18; it came at 0.5.
    assert world.requests_of(1)[1].tolist() == [17.5]
