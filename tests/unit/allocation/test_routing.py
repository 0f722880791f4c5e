import pytest

from headgate.allocation.routing import Candidate, choose_replica, guess_pace, learn_pace


def one(name, pace=1.0, in_flight=0, slots=2, **more) -> Candidate:
    return Candidate(id=name, slots=slots, pace=pace, in_flight=in_flight, **more)


def chosen(*candidates, **more):
    found = choose_replica(candidates, **more)
    return found.id if found else None


def test_the_one_expected_to_finish_first_wins():
    assert chosen(one("slow", pace=3.0), one("fast", pace=1.0, in_flight=1)) == "fast"
    assert chosen(one("slow", pace=1.5), one("fast", pace=1.0, in_flight=1)) == "slow"
    assert chosen(one("first"), one("second")) == "first"


def test_full_and_unready_ones_are_left_out():
    assert chosen(one("full", in_flight=2), one("loading", ready=False)) is None
    assert chosen(one("full", in_flight=2), one("far", pace=99.0)) == "far"
    assert chosen() is None


def test_one_that_failed_this_request_is_never_taken_again():
    assert chosen(one("a"), one("b", pace=9.0), failed={"a"}) == "b"
    assert chosen(one("a"), failed={"a"}) is None
    assert chosen(one("a", suspect=True), failed={"a"}) is None


def test_a_suspect_is_the_last_resort():
    assert chosen(one("a", suspect=True), one("b", pace=9.0)) == "b"
    assert chosen(one("a", suspect=True), one("b", in_flight=2)) == "a"


def test_a_preferred_one_wins_when_it_is_not_much_later():
    assert chosen(one("a"), one("b", pace=1.3), preferred="b") == "b"
    assert chosen(one("b", pace=1.3), one("a"), preferred="b") == "b"
    assert chosen(one("a"), one("b", pace=1.6), preferred="b") == "a"
    assert chosen(one("b", in_flight=2), one("a"), preferred="b") == "a"


def test_pace_is_learned_for_each_request_alone():
    assert learn_pace(1.0, 2.0, 2.0) == pytest.approx(1.0)
    assert learn_pace(1.0, 3.0, 1.0) == pytest.approx(1.2)
    assert guess_pace(1.0, share=0.5, mean_share=1.0) == 2.0
