from headgate.allocation.state import Running, Seat
from headgate.control.takeback import seat_draining
from tests.unit.control.world import make_capacity


def seat(pipeline="a", device=0, replica=None, configuration="c", share=1.0) -> Seat:
    return Seat(
        pipeline=pipeline, configuration=configuration, pool="cpu", node="local", devices=(device,), share=share,
        memory_bytes=10, replica=replica,
    )  # fmt: skip


def draining(name, device=0, pipeline="a", in_flight=0, share=1.0) -> Running:
    return Running(
        id=name, pipeline=pipeline, configuration="c", pool="cpu", node="local", devices=(device,), share=share,
        memory_bytes=10, stage="draining", in_flight=in_flight,
    )  # fmt: skip


def seat_them(seats, running, able=None) -> list[tuple[str | None, int]]:
    able = {one.id for one in running} if able is None else able
    made = seat_draining(seats, running, able, make_capacity(2))
    assert len(made) == len(seats)
    return [(one.replica, one.devices[0]) for one in made]


def test_a_seat_to_start_on_is_given_to_one_that_drains_wherever_it_sits():
    assert seat_them([seat(device=0)], [draining("r", device=0)]) == [("r", 0)]
    assert seat_them([seat(device=0)], [draining("r", device=1)]) == [("r", 1)]


def test_the_place_of_another_is_not_taken():
    other = seat(pipeline="b", device=1, replica="x")
    assert seat_them([seat(device=0), other], [draining("r", device=1)]) == [(None, 0), ("x", 1)]
    later = seat(pipeline="b", device=1)  # to be started there
    assert seat_them([seat(device=0), later], [draining("r", device=1)]) == [(None, 0), (None, 1)]


def test_the_busiest_come_first_and_each_on_its_own_place():
    two = [draining("idle", device=0), draining("busy", device=1, in_flight=2)]
    assert seat_them([seat(device=0)], two) == [("busy", 1)]
    assert seat_them([seat(device=0), seat(device=1)], two) == [("idle", 0), ("busy", 1)]


def test_only_its_own_kind_and_only_who_is_able():
    assert seat_them([seat(pipeline="b")], [draining("r")]) == [(None, 0)]
    assert seat_them([seat(configuration="d")], [draining("r")]) == [(None, 0)]
    assert seat_them([seat(replica="sits")], [draining("r", device=1)]) == [("sits", 0)]
    assert seat_them([seat()], [draining("r")], able=set()) == [(None, 0)]
