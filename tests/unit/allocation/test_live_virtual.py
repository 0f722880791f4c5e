"""The product's loop and queues on virtual time, with timed units."""

from __future__ import annotations

import asyncio

import pytest
from benchmarks.lanes.live_cases import CASES, unit_speed
from benchmarks.lanes.live_virtual import VirtualHouse

from headgate.evaluation.burst import Arrival
from headgate.evaluation.samples import Sample
from headgate.evaluation.static_split import Split, replay

UNITS = CASES[0]
SPEEDS = dict.fromkeys(UNITS.models, unit_speed())


def play(arrivals: list[Arrival], split: Split | None = None) -> tuple[VirtualHouse, list[Sample]]:
    house = VirtualHouse(UNITS, split=split)
    return house, asyncio.run(house.run(arrivals, SPEEDS))


def test_a_static_split_does_what_the_replay_expects_of_it() -> None:
    split = {"mail": 3, "orders": 3, "search": 2}
    arrivals = UNITS.plan(SPEEDS, 6.0, seed=5)[1]
    house, samples = play(arrivals, split)
    assert sum(house.reconciler.moves.values()) == sum(split.values())  # none but the first
    for name, count in split.items():
        expected = replay(arrivals, name, count, SPEEDS[name])
        mine = [one for one in samples if one.pipeline == name]
        # The first token comes a tenth of a second after the slot, and time goes in steps of a hundredth.
        waits = [one.first_token_s - 0.1 for one in mine if one.first_token_s is not None]
        assert sum(waits) == pytest.approx(expected.waited_s, rel=0.1, abs=0.5)


def test_capacity_moves_within_the_budget_and_the_same_load_ends_the_same() -> None:
    arrivals = UNITS.plan(SPEEDS, 6.0, seed=5)[1]
    house, samples = play(arrivals)
    assert sorted(one.number for one in samples) == [one.number for one in arrivals]
    assert house.over == 0 < house.looks
    assert house.reconciler.moves["stop"] > 0
    assert play(arrivals)[1] == samples
