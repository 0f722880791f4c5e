"""What a profile says of several requests at once, and of the states that a replica rests in."""

from __future__ import annotations

import pytest

from headgate.allocation.profile import Profile


def test_nothing_measured_slows_nothing_down() -> None:
    assert Profile().slow_by_slot(4) == (1.0,)


def test_between_two_measured_counts_lies_a_straight_line() -> None:
    profile = Profile(slow=((1, 1.0), (2, 1.5), (4, 3.5)))
    assert profile.slow_by_slot(5) == pytest.approx((1.0, 1.5, 2.5, 3.5, 3.5))


def test_noise_makes_no_busy_replica_faster() -> None:
    assert Profile(slow=((1, 1.0), (2, 0.9), (4, 2.0))).slow_by_slot(4) == pytest.approx((1.0, 1.0, 1.45, 2.0))


def test_decoding_tells_where_requests_were_not_measured() -> None:
    profile = Profile(decode_tokens_per_s=((1, 100.0), (2, 160.0), (4, 200.0)))
    assert profile.slow_by_slot(4)[3] == pytest.approx(2.0)
    assert profile.slow_by_slot(2) == pytest.approx((1.0, 1.25))


def test_states_rise_in_memory_and_fall_in_waiting() -> None:
    profile = Profile(load_s=0.1, load_cold_s=0.4, file_bytes=2, warm_bytes=30, memory_bytes=40)
    rests = profile.rests()
    assert [rest.state for rest in rests] == ["off", "asleep", "warm", "serving"]
    assert [rest.memory_bytes for rest in rests] == [0, 2, 30, 40]
    assert [rest.wake_s for rest in rests] == [0.4, 0.1, 0.0, 0.0]
