import pytest

from headgate.allocation.admission import decide_admission, expect_wait


def ask(**more):
    return decide_admission(
        **{"slots_free": 0, "slots": 4, "queued": 0, "queue_limit": 8, "service_s": 2.0, **more}
    )  # fmt: skip


def test_a_free_slot_admits_unless_others_wait():
    assert ask(slots_free=1).action == "admit"
    assert ask(slots_free=1, queued=1).action == "hold"
    assert ask(slots_free=1, time_left_s=0.0).cause == "deadline"


def test_the_queue_is_bounded_and_tells_when_to_come_again():
    assert ask(queued=7).action == "hold"
    full = ask(queued=8)
    assert (full.action, full.cause) == ("refuse", "queue_full")
    assert full.retry_after_s == 2.0, "half the queue at two requests a second"
    assert ask(queued=8, service_s=None).retry_after_s == 1.0
    assert ask(queued=8, service_s=9999.0).retry_after_s == 60.0


def test_a_deadline_that_cannot_be_met_is_refused_at_once():
    assert ask(queued=3, time_left_s=3.0).action == "hold"
    late = ask(queued=7, time_left_s=3.0)
    assert (late.action, late.cause, late.wait_s) == ("refuse", "deadline", 4.0)
    assert ask(queued=7, service_s=None, time_left_s=0.1).action == "hold", "nobody is refused on a guess"


def test_a_sleeping_pipeline_holds_the_request_while_it_wakes():
    held = ask(slots=0, service_s=None, wake_s=0.3)
    assert (held.action, held.wait_s) == ("hold", 0.3)
    assert ask(slots=0, wake_s=5.0, time_left_s=1.0).cause == "deadline"


def test_a_blocked_pipeline_refuses_unless_a_replica_is_left():
    assert ask(slots=0, blocked=True).cause == "blocked"
    assert ask(slots=4, blocked=True).action == "hold"


def test_waits_grow_with_the_queue():
    assert expect_wait(queued=0, slots=4, service_s=2.0) == pytest.approx(0.5)
    assert expect_wait(queued=3, slots=4, service_s=2.0) == pytest.approx(2.0)
