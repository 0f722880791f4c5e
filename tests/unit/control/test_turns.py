"""How often the loop turns: at once when something has happened, seldom where nobody asks, never all the time."""

from tests.unit.control.world import World, make_plan


async def test_work_that_comes_ends_the_pause_of_a_quiet_house():
    async with World(make_plan(a={"floor": 1})) as world:
        await world.run(3.0)
        turns: list[tuple[str, float]] = []
        turn = world.reconciler.tick
        world.reconciler.tick = lambda trigger="tick": (turns.append((trigger, world.clock.monotonic())), turn(trigger))
        await world.run(2.0)
        assert len(turns) == 2, "one a second while nobody asks"
        world.work = {"a": (0, 1)}
        await world.run(1.0)
        assert turns[2][0] == "work" and len(turns) >= 11, "and then one every tenth of a second"


async def test_turns_that_take_long_come_less_often():
    async with World(make_plan(a={"floor": 1})) as world:
        world.work = {"a": (0, 1)}
        turns: list[float] = []
        turn = world.reconciler.tick

        def slow(trigger="tick"):
            turns.append(world.clock.monotonic())
            answer = turn(trigger)
            world.reconciler._turn_s = 0.2  # what it is taken to have lasted
            return answer

        world.reconciler.tick = slow
        await world.run(5.0)
        assert 6 <= len(turns) <= 9, "a pause is four times as long as a turn"
