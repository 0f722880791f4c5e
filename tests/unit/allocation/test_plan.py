from headgate.allocation.plan import plan_moves
from headgate.allocation.state import Seat
from tests.unit.allocation.test_policy import GB, make_capacity, runs


def seat(pipeline, core, share=1.0, replica=None, memory=GB) -> Seat:
    return Seat(
        pipeline=pipeline, configuration="v1", pool="cpu", node="n", devices=(core,), share=share, memory_bytes=memory,
        replica=replica,
    )  # fmt: skip


def kinds(plan) -> list[str]:
    return [move.kind for move in plan.moves]


def test_a_start_waits_for_those_whose_place_it_takes_and_only_for_them():
    running = [runs("r1", "a", 0), runs("r2", "a", 1, share=0.5)]
    plan = plan_moves(running, [seat("b", 0), seat("c", 1, share=0.5)], make_capacity(2))
    assert kinds(plan) == ["start", "drain", "drain", "stop", "start", "stop"]
    assert {move.seat.pipeline: move.after for move in plan.fills} == {"c": (), "b": ("r1",)}


def test_a_draining_replica_still_holds_its_place():
    running = [runs("r1", "a", 0, stage="draining", in_flight=3)]
    plan = plan_moves(running, [seat("b", 0)], make_capacity(1))
    assert kinds(plan) == ["stop", "start"] and plan.fills[0].after == ("r1",)


def test_memory_is_waited_for_as_well():
    running = [runs("r1", "a", 0, memory=2 * GB)]
    plan = plan_moves(running, [seat("b", 1, memory=2 * GB)], make_capacity(2, memory=3 * GB))
    assert plan.fills[0].after == ("r1",)


def test_who_keeps_a_seat_is_left_alone():
    running = [runs("r1", "a", 0)]
    assert plan_moves(running, [seat("a", 0, replica="r1")], make_capacity(1)).moves == ()


def test_those_with_nothing_in_flight_leave_first():
    running = [runs("r1", "a", 0, in_flight=2), runs("r2", "a", 1)]
    assert [move.replica for move in plan_moves(running, [], make_capacity(2)).drains] == ["r2", "r1"]


def test_a_seat_that_can_never_fit_is_left_out():
    running = [runs("r1", "a", 0)]
    plan = plan_moves(running, [seat("a", 0, replica="r1"), seat("b", 0)], make_capacity(1))
    assert plan.moves == ()
