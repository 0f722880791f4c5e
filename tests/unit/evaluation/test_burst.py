"""Planned loads: the same seed, the same arrivals; the mean is what was asked for; the heat moves."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.core.chance import SeededChance
from headgate.evaluation.burst import plan_arrivals, plan_phases
from headgate.evaluation.tickets import write_ticket

RATES = {"a": 40.0, "b": 20.0, "c": 80.0}


def test_the_same_seed_plans_the_same() -> None:
    phases = plan_phases(("a", "b"), seconds=10, hot_per_s=RATES)
    assert plan_arrivals(phases, SeededChance(7)) == plan_arrivals(phases, SeededChance(7))
    assert plan_arrivals(phases, SeededChance(7)) != plan_arrivals(phases, SeededChance(8))


def test_the_heat_moves() -> None:
    phases = plan_phases(("a", "b", "a"), seconds=60, hot_per_s={"a": 40.0, "b": 40.0})
    assert [phase.hot for phase in phases] == ["a", "b", "a"]
    arrivals = plan_arrivals(phases, SeededChance(1))
    for phase in phases:
        inside = Counter(one.pipeline for one in arrivals if phase.from_s <= one.at_s < phase.until_s)
        assert inside.most_common(1)[0][0] == phase.hot
        assert inside[phase.hot] > 4 * min(inside.values())


def test_steady_pipelines_are_never_hot_and_asked_all_the_time() -> None:
    phases = plan_phases(("a", "b"), seconds=40, hot_per_s={"a": 40.0, "b": 40.0}, cold=0.0, steady_per_s={"c": 90.0})
    assert [phase.hot for phase in phases] == ["a", "b"]
    arrivals = plan_arrivals(phases, SeededChance(2))
    for phase, cold in zip(phases, "ba", strict=True):
        inside = Counter(one.pipeline for one in arrivals if phase.from_s <= one.at_s < phase.until_s)
        assert inside[cold] == 0
        assert inside[phase.hot] > 400
        assert inside["c"] > 1000


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_arrivals_are_in_order_inside_and_about_as_many_as_asked_for(seed: int) -> None:
    phases = plan_phases(("a", "b", "c"), seconds=90, hot_per_s=RATES)
    arrivals = plan_arrivals(phases, SeededChance(seed))
    assert [one.at_s for one in arrivals] == sorted(one.at_s for one in arrivals)
    assert [one.number for one in arrivals] == list(range(len(arrivals)))
    assert all(0 <= one.at_s < 90 for one in arrivals)
    expected = sum(rate * 30 * (1 + 2 * 0.1) for rate in RATES.values())
    assert len(arrivals) == pytest.approx(expected, rel=0.35)


def test_it_comes_in_bursts() -> None:
    phases = plan_phases(("a",), seconds=300, hot_per_s={"a": 50.0})
    arrivals = plan_arrivals(phases, SeededChance(3))
    counts = Counter(int(one.at_s) for one in arrivals)
    values = [counts[second] for second in range(300)]
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    assert variance > 2 * mean  # a plain Poisson stream has a variance equal to its mean


def test_bad_loads_are_refused() -> None:
    for order, seconds in (((), 10), (("a",), 0), (("a",), -1)):
        with pytest.raises(ValueError):
            plan_phases(order, seconds=seconds, hot_per_s=RATES)
    with pytest.raises(ValueError):
        plan_phases(("a",), seconds=1, hot_per_s={"a": 0.0})


def test_tickets_repeat_by_seed_and_differ_by_number() -> None:
    assert write_ticket(SeededChance(5)) == write_ticket(SeededChance(5))
    assert len({write_ticket(SeededChance(number)) for number in range(200)}) > 190
