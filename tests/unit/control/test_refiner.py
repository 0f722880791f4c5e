"""Decisions solved exactly in the background: never twice, never in a turn's way, and what is found is made use of."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from headgate.allocation.recording import build_state
from headgate.allocation.refine import Refinement
from headgate.control.refinements import RefinementBook
from headgate.control.refiner import Refiner
from headgate.control.replay import replay
from headgate.control.settings import ControlSettings
from headgate.control.status import build_status, explain_decisions
from tests.unit.control.world import World, make_plan

EVERY_S = ControlSettings().exact_every_s


class Solver:
    """What is asked of it; it answers with `found` when it is let go."""

    def __init__(self, found: Refinement | Exception | None) -> None:
        self.found = found
        self.asked: list[tuple[int, float]] = []
        self.free = asyncio.Event()
        self.free.set()

    async def __call__(self, state, seconds):
        self.asked.append((len(build_state(dict(state)).pipelines), seconds))
        await self.free.wait()
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


class Background:
    """A refiner that runs beside a world's loop."""

    def __init__(self, world: World, solver: Solver) -> None:
        self._refiner = Refiner(world.reconciler, world.clock, solver)

    async def __aenter__(self) -> None:
        self._task = asyncio.ensure_future(self._refiner.run())

    async def __aexit__(self, *error) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def test_the_newest_decision_is_looked_at_once() -> None:
    solver = Solver(Refinement(gap=0.25))
    async with World(make_plan(a={"floor": 1}, b={})) as world, Background(world, solver):
        await world.run(EVERY_S - 1.0)
        assert solver.asked == [] and build_status(world.reconciler)["gap_to_exact"] is None
        await world.run(2.0)
        assert solver.asked == [(2, 10.0)]
        await world.run(2 * EVERY_S)
        assert len(solver.asked) == 1, "nothing new was decided"
        world.work = {"b": (2, 0)}
        await world.run(EVERY_S)
        newest = world.reconciler.number
        assert len(solver.asked) == 2 and newest > 1
        told = build_status(world.reconciler)
        assert (told["gap_to_exact"], told["exact_decision"]) == (0.25, newest)
        gaps = {one["number"]: one["gap_to_exact"] for one in explain_decisions(world.reconciler)}
        assert gaps[newest] == gaps[1] == 0.25


async def test_turns_go_on_while_it_is_solved() -> None:
    solver = Solver(Refinement(gap=0.0))
    solver.free.clear()
    async with World(make_plan(a={"floor": 1}, b={})) as world, Background(world, solver):
        await world.run(EVERY_S + 1.0)
        assert solver.asked
        world.work = {"b": (2, 0)}
        await world.run(2.0)
        assert world.ready("b"), "the loop did not wait"
        assert len(solver.asked) == 1
        solver.free.set()
        await world.run(0.1)
        assert world.reconciler.refined.number == 1


@pytest.mark.parametrize("found", [None, RuntimeError("broke"), OSError("no process")])
async def test_what_cannot_be_solved_is_left_alone(found) -> None:
    solver = Solver(found)
    async with World(make_plan(a={"floor": 1})) as world, Background(world, solver):
        await world.run(3 * EVERY_S)
        assert len(solver.asked) == 1
        told = build_status(world.reconciler)
        assert (told["gap_to_exact"], told["exact_decision"]) == (None, 1)


async def test_it_can_be_switched_off_and_on_by_a_reload() -> None:
    solver = Solver(Refinement(gap=0.0))
    plan = make_plan(settings=ControlSettings(exact_every_s=None), a={"floor": 1})
    async with World(plan) as world, Background(world, solver):
        await world.run(3 * EVERY_S)
        assert solver.asked == []
        world.reconciler.apply_plan(replace(plan, settings=ControlSettings(exact_every_s=1.0, exact_limit_s=2.0)))
        await world.run(7.0)
        assert solver.asked == [(1, 2.0)]


async def test_prices_and_proposals_are_part_of_the_recorded_state_and_replay() -> None:
    solver = Solver(Refinement(gap=0.1, prices=((0.5,),), proposal={"a": {"gone": 3}}))
    async with World(make_plan(cores=2, a={"floor": 1}, b={})) as world, Background(world, solver):
        await world.run(EVERY_S + 0.01)
        states = []
        load = world.reconciler._load_state
        world.reconciler._load_state = lambda now: states.append(load(now)) or states[-1]
        await world.run(1.2)
        assert [one.prices == ((0.5,),) for one in states].count(True) == 1, "to begin one turn with"
        assert all(one.proposal == {"a": {"gone": 3}} for one in states)
        world.work = {"b": (4, 0)}
        await world.run(2.0)
        row = world.journal.decisions[-1]
        assert row["number"] > 1 and row["state"]["proposal"] == {"a": {"gone": 3}}
        assert replay(row).same, "a proposal for what is no more is none"
        solver.found = None
        await world.run(EVERY_S)
        assert world.reconciler.refined.proposal == {}


async def test_a_proposal_has_its_time() -> None:
    solver = Solver(Refinement(gap=0.1, proposal={"a": {"gone": 3}}))
    async with World(make_plan(a={"floor": 1})) as world, Background(world, solver):
        await world.run(EVERY_S + 1.0)
        assert world.reconciler.refined.proposal
        await world.run(EVERY_S)
        assert not world.reconciler.refined.proposal


def test_only_so_many_gaps_are_kept() -> None:
    book = RefinementBook()
    for number in range(500):
        book.take(number, Refinement(gap=0.0))
    assert len(book.gaps) == 200 and min(book.gaps) == 300 and book.gap == 0.0
