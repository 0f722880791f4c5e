"""Static splits: all that fit, and the one that a replay finds best."""

from __future__ import annotations

from headgate.allocation.capacity import Capacity, Node, Pool
from headgate.allocation.pipeline import Configuration
from headgate.evaluation.burst import Arrival
from headgate.evaluation.static_split import Outcome, Speed, list_splits, rank_splits, replay


def capacity(cores: int, memory_bytes: int = 0) -> Capacity:
    node = Node(name="n", devices=tuple(range(cores)), share=float(cores), memory_bytes=memory_bytes)
    return Capacity(pools=(Pool(name="cpu", kind="cpu", nodes=(node,)),))


def sizes(memory_bytes: int = 0, **shares: float) -> dict[str, Configuration]:
    return {
        name: Configuration(key=name, pool="cpu", share=share, slots=1, memory_bytes=memory_bytes)
        for name, share in shares.items()
    }


def arrivals(*times: float, pipeline: str = "a", first: int = 0) -> list[Arrival]:
    return [Arrival(number=first + number, at_s=at_s, pipeline=pipeline) for number, at_s in enumerate(times)]


def test_every_full_split_is_listed_once() -> None:
    found = list_splits(capacity(2), sizes(a=0.5, b=0.5))
    assert sorted((one["a"], one["b"]) for one in found) == [(0, 4), (1, 3), (2, 2), (3, 1), (4, 0)]


def test_small_replicas_fill_what_big_ones_leave() -> None:
    found = list_splits(capacity(2), sizes(a=0.9, b=0.1))
    assert sorted((one["a"], one["b"]) for one in found) == [(0, 20), (1, 11), (2, 2)]


def test_memory_bounds_a_split() -> None:
    found = list_splits(capacity(2, memory_bytes=250), sizes(memory_bytes=100, a=0.1, b=0.1))
    assert sorted((one["a"], one["b"]) for one in found) == [(0, 2), (1, 1), (2, 0)]


def test_a_replay_waits_for_slots_and_never_serves_two_in_one() -> None:
    speed = Speed(slots=1, requests_per_s=2.0, late_after_s=0.6)
    burst = arrivals(0.0, 0.0, 0.0, 0.0)
    assert replay(burst, "a", 1, speed) == Outcome(late=2, waited_s=0.5 + 1.0 + 1.5)
    assert replay(burst, "a", 2, speed) == Outcome(late=0, waited_s=0.5 + 0.5)
    assert replay(burst, "a", 0, speed) == Outcome(lost=4)
    assert replay(burst, "b", 1, speed) == Outcome()


def test_more_slots_take_longer_each_and_are_as_fast_together() -> None:
    speed = Speed(slots=4, requests_per_s=2.0, late_after_s=10.0)
    assert replay(arrivals(0.0, 0.0, 0.0, 0.0, 0.0), "a", 1, speed) == Outcome(waited_s=2.0)


def test_the_best_split_follows_the_load_and_leaves_nobody_out() -> None:
    speed = Speed(slots=1, requests_per_s=1.0, late_after_s=0.5)
    splits = list_splits(capacity(3), sizes(a=1.0, b=1.0))
    load = arrivals(0.0, 0.0, 5.0, 5.0, 9.0, 9.0) + arrivals(0.0, pipeline="b", first=9)
    ranked = rank_splits(splits, load, {"a": speed, "b": speed})
    assert ranked[0] == (Outcome(), {"a": 2, "b": 1})
    assert [outcome for outcome, _ in ranked] == sorted(outcome for outcome, _ in ranked)
    assert ranked[-1][1] == {"a": 0, "b": 3}
    everyone_else_late = arrivals(*[0.1 * number for number in range(90)])
    best = rank_splits(splits, [*everyone_else_late, *arrivals(0.0, pipeline="b", first=99)], {"a": speed, "b": speed})
    assert best[0][1]["b"] == 1  # a request that is lost is worse than many that are late
