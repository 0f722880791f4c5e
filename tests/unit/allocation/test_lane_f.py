import numpy as np
import pytest
from benchmarks.lanes.lane_f import LATE_S, SERVICE, score
from benchmarks.lanes.traces import WORK_LEAST_S, draw_requests
from benchmarks.lanes.wva import PER_REPLICA, share_devices

from headgate.allocation.simulator.world import Requests, World


def test_a_minute_begins_with_a_request_and_has_as_many_as_were_counted():
    first, second = draw_requests(np.array([[3, 0], [2, 1]]), seed=42)
    assert len(first.at) == len(first.work) == 5 and list(second.at) == [60.0]
    assert 0.0 in first.at and 60.0 in first.at and np.all(np.diff(first.at) >= 0.0)
    assert np.all(first.work > WORK_LEAST_S)


def test_the_same_seed_draws_the_same():
    counts = np.array([[5, 7], [6, 8]])
    one, same, other = (draw_requests(counts, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a.at, b.at) and np.array_equal(a.work, b.work) for a, b in zip(one, same, strict=True))
    assert not np.array_equal(one[0].at, other[0].at)


def scored(latencies, at, minutes) -> dict[str, float]:
    requests = [Requests(at=np.array(moments, float), work=np.ones(len(moments))) for moments in at]
    world = World([SERVICE] * len(at), requests, 4, turns=True)
    world.latency[:] = np.concatenate([np.array(one, float) for one in latencies])
    return score(world, minutes)


def test_late_dropped_and_unfinished_requests_count_by_minute_and_job():
    found = scored([[0.1, np.inf, 0.1, np.nan], [0.1, 2.0]], [[0.0, 1.0, 60.0, 61.0], [0.0, 1.0]], 2)
    assert found["violations"] == pytest.approx((0.5 + 0.5 + 0.5 + 0.0) / 4)
    assert found["worst_job_violations"] == pytest.approx(0.5)


def test_utility_is_lost_by_the_p99_of_a_minute():
    found = scored([[2 * LATE_S, 2 * LATE_S, 0.1]], [[0.0, 1.0, 60.0]], 2)
    assert found["lost_utility"] == pytest.approx((0.5 + 0.0) / 2)


def test_the_p99_is_interpolated_and_one_drop_in_a_short_minute_loses_it():
    at = [list(np.linspace(0.0, 50.0, 101))]
    assert scored([[0.1] * 99 + [LATE_S] * 2], at, 1)["lost_utility"] == pytest.approx(0.0)
    assert scored([[0.1] * 99 + [np.inf] * 2], at, 1)["lost_utility"] == pytest.approx(1.0)
    assert scored([[0.1] * 100 + [np.inf]], at, 1)["lost_utility"] == pytest.approx(0.0)


def test_requests_that_spill_over_count_only_in_the_way_of_faro():
    found = scored([[0.1, 9.0], [0.1]], [[0.0, 60.5], [0.0]], 1)
    assert found["violations"] == 0.0 and found["lost_utility"] == 0.0
    assert found["faro_violations"] == pytest.approx(0.5)
    assert found["faro_lost_utility"] == pytest.approx(2.0 - (2.0 + LATE_S / 9.0) / 2)


def test_devices_go_to_those_who_need_most_and_no_further_than_there_are():
    given = share_devices(np.array([4.0, 1.0, 0.0]) * PER_REPLICA, 3)
    assert given.sum() == 3 and given[0] > given[1] and given[2] == 0
