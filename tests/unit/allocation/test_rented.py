"""Capacity that is paid for by use: what is kept alive, at what price, and what decisions make of it."""

from dataclasses import replace

import numpy as np
import pytest

from headgate.allocation.capacity import Capacity, Node, Pool
from headgate.allocation.demand import Demand, Seen
from headgate.allocation.error_budget import ErrorBudget
from headgate.allocation.keep_alive import KeepAlive, Work
from headgate.allocation.pipeline import Configuration, PipelineSpec
from headgate.allocation.policy import decide
from headgate.allocation.recording import build_state, plain_state, seal_allocation
from headgate.allocation.rented import Rented
from headgate.allocation.settings import DEFAULTS
from headgate.allocation.state import Running, State


def work(came, inside, ahead_s: float = 3.0) -> Work:
    def every(value: float) -> np.ndarray:
        return np.full(len(came), value)

    return Work(
        came=np.array(came, float), inside=np.array(inside, float), service_s=every(2.0), ahead_s=every(ahead_s),
        wait_s=every(2.0), slots=every(4.0),
    )  # fmt: skip


def live(keep: KeepAlive, seconds: int, every_s: int, price: float, pipelines: int = 1) -> list[int]:
    """What the first pipeline is given each second, when one request comes to it every `every_s`."""
    given = []
    for second in range(seconds):
        came = [1.0 if second % every_s == 0 else 0.0] + [0.0] * (pipelines - 1)
        keep.learn(work(came, [1.0 if second % every_s < 2 else 0.0] + [0.0] * (pipelines - 1)), 1.0)
        given.append(int(keep.choose(np.full(pipelines, price))[0]))
    return given


def test_who_comes_often_is_kept_and_at_a_higher_price_only_for_a_while():
    cheap, dear = (live(KeepAlive(1), 20_000, 900, price) for price in (0.005, 0.5))
    assert np.mean(cheap[10_000:]) > 0.9
    assert 0.05 < np.mean(dear[10_000:]) < 0.3


def test_what_is_there_serves_the_present():
    keep = KeepAlive(1)
    for _ in range(30):
        keep.learn(work([6.0], [12.0]), 1.0)
        given = keep.choose(np.array([100.0]))
    assert 3 <= given[0] <= 5  # 12 requests at once, 4 to a replica, and those that come until one more serves


def test_what_was_learned_goes_with_its_pipeline():
    keep, alone = KeepAlive(2), KeepAlive(1)
    live(keep, 7200, 300, 0.01, pipelines=2)
    live(alone, 7200, 300, 0.01)
    keep.carry(np.array([-1, 0]))  # the second goes, a new one comes before the first
    for second in range(200):
        keep.learn(work([0.0, 0.0], [0.0, 0.0]), 1.0)
        alone.learn(work([0.0], [0.0]), 1.0)
        given, expected = keep.choose(np.full(2, 0.01)), alone.choose(np.full(1, 0.01))
        assert given.tolist() == [0, *expected.tolist()], second


def spend(budget: ErrorBudget, minutes: int, lost_every: int, pipelines: int = 20) -> None:
    for minute in range(minutes):
        late = np.zeros(pipelines)
        late[0] = 1.0 if lost_every and minute % lost_every == 0 else 0.0
        budget.learn(np.full(pipelines, 10.0), late, 60.0)


def test_capacity_must_bring_more_while_budget_is_left_and_less_when_it_is_overdrawn():
    kept, overdrawn = ErrorBudget(), ErrorBudget()
    spend(kept, 300, 0)
    spend(overdrawn, 300, 1)  # one lost in 20
    assert kept.factor > 2.0 and overdrawn.factor < 0.5
    assert kept.left == pytest.approx(240 * 20 * 0.0094, rel=0.05)


def test_the_first_hour_and_silence_cost_no_budget():
    budget = ErrorBudget()
    spend(budget, 59, 1)
    assert budget.left == 0.0 and budget.factor == 1.0
    for _ in range(600):
        budget.learn(np.zeros(3), np.zeros(3), 60.0)
    assert budget.left == 0.0


ELASTIC = Configuration(key="v1", pool="cloud", share=1.0, slots=4, memory_bytes=1, wake_s=3.0)


def capacity(*, elastic: bool = True, devices: int = 8, price: float = 2.0) -> Capacity:
    node = Node(name="n", devices=tuple(range(devices)), share=float(devices), memory_bytes=100)
    return Capacity(pools=(Pool(name="cloud", kind="cpu", nodes=(node,), price_per_hour=price, elastic=elastic),))


def spec(name: str = "a", **more) -> PipelineSpec:
    return PipelineSpec(name=name, configurations=(ELASTIC,), cap=8, first_token_s=2.0, idle_s=5.0, **more)


def watch(rented: Rented, where: Capacity, seconds: int, arrivals: int, money: float = 0.01) -> int | None:
    """What is kept after so many seconds in which as many requests come each minute."""
    settings = replace(DEFAULTS, money=money)
    for second in range(seconds):
        came = arrivals if second % 60 == 0 else 0
        seen = {"a": Seen(elapsed_s=1.0, arrivals=came)}
        rented.learn({"a": spec()}, {"a": Demand(service_s=2.0)}, seen, where, settings)
    return rented.look("a")


def test_only_what_is_paid_for_by_use_is_kept_by_its_price():
    assert watch(Rented(), capacity(elastic=False), 600, 3) is None
    assert watch(Rented(), capacity(price=0.0), 600, 3) is None
    assert watch(Rented(), capacity(), 600, 3) == 1
    rented = Rented()
    watch(rented, capacity(), 3600, 3)
    assert watch(rented, capacity(), 40_000, 0) == 0


def test_who_waits_is_not_kept_waiting_for_the_next_look():
    rented = Rented()
    watch(rented, capacity(), 600, 0)
    assert rented.look("a") == 0
    waiting = {"a": Seen(elapsed_s=0.25, arrivals=40, queued=40)}
    rented.learn({"a": spec()}, {"a": Demand(service_s=2.0, queued=40)}, waiting, capacity())
    assert (rented.look("a") or 0) >= 4


def test_nobody_is_sent_away_whose_request_came_since_the_last_look():
    told = state({"a": 0}, running=1)
    told = replace(told, demands={"a": Demand(service_s=2.0, in_flight=1, concurrency=0.1, kept=0)})
    assert decide(told).replicas == {"a": 1} and decide(told).seats[0].replica == "r0"


def state(kept: dict[str, int | None], running: int = 0, devices: int = 8) -> State:
    demands = {name: Demand(idle_for_s=100.0, service_s=2.0, kept=count) for name, count in kept.items()}
    replicas = tuple(
        Running(
            id=f"r{number}", pipeline="a", configuration="v1", pool="cloud", node="n", devices=(number,), share=1.0,
            memory_bytes=1, stage="ready",
        )
        for number in range(running)
    )  # fmt: skip
    return State(
        at=1000.0, capacity=capacity(devices=devices), pipelines=tuple(spec(name) for name in kept), demands=demands,
        running=replicas,
    )  # fmt: skip


@pytest.mark.parametrize("kept", [0, 1, 3])
@pytest.mark.parametrize("running", [0, 2])
def test_a_decision_gives_what_is_worth_keeping(kept, running):
    told = state({"a": kept}, running)
    allocation = decide(told)
    assert allocation.replicas.get("a", 0) == kept
    assert bool(allocation.changes) == (kept != running)
    for change in allocation.changes:
        assert ("kept alive" if kept > running else "not called often enough") in change.reason
    assert seal_allocation(decide(build_state(plain_state(told)))) == seal_allocation(allocation)


def test_where_it_does_not_suffice_all_get_their_part():
    replicas = decide(state({"a": 6, "b": 3}, devices=6)).replicas
    assert replicas == {"a": 4, "b": 2}


def test_a_floor_holds_and_nobody_gets_more_than_the_cap():
    told = state({"a": 0, "b": 20})
    pipelines = (spec("a", floor=1), replace(spec("b"), cap=2))
    assert decide(replace(told, pipelines=pipelines)).replicas == {"a": 1, "b": 2}
