"""The training ground's own parts: who foresees, and how denser requests come."""

import numpy as np
import pytest
from benchmarks.lanes.lane_f import MODES
from benchmarks.lanes.tune import GROUP, STEP_S, Ground, Seer, _clusters, _draw, play, vary

from headgate.allocation.forecast import Window
from headgate.allocation.settings import DEFAULTS


def make_ground(minutes: int = 10, seed: int = 3) -> Ground:
    chance = np.random.default_rng(seed)
    steps = np.arange(round(minutes * 60 / STEP_S))
    rates = np.stack([6.0 + 5.0 * np.sin(steps / 15.0 + one) for one in range(GROUP)], axis=1)
    return Ground(budget=14, rates=rates, requests=[_draw(chance, rates[:, one]) for one in range(GROUP)])


def test_who_foresees_tells_the_mean_rate_of_a_window_and_holds_the_last_at_the_end():
    seer = Seer(np.array([[2.0], [4.0], [9.0]]))
    seer.learn({"0": 1.0}, 5.0)
    soon, later = seer.forecast("0", [Window(begins_s=0.0, ends_s=5.0), Window(begins_s=0.0, ends_s=10.0)])
    assert soon == pytest.approx((4.0,) * 7) and later == pytest.approx((6.5,) * 7)
    assert seer.forecast("0", [Window(begins_s=40.0, ends_s=80.0)])[0] == pytest.approx((9.0,) * 7)


def test_a_block_is_denser_by_what_the_gaps_coefficient_says_and_poisson_stays_as_it_is():
    chance = np.random.default_rng(5)
    rates, calm, dense = np.full((30_000, 1), 10.0), np.ones((30_000, 1)), np.full((30_000, 1), 2.0)
    assert _clusters(chance, rates, calm).std() < 0.01
    found = _clusters(chance, rates, dense)
    assert found.mean() == pytest.approx(1.0, abs=0.01)
    assert found.var() == pytest.approx((2.0**2 - 1.0) / (10.0 * 15.0), rel=0.1)


def test_switching_faster_keeps_more_on_time_and_the_same_ground_plays_the_same():
    ground = make_ground()
    late = {mode: play(ground, mode)[0] for mode in MODES}
    assert 0.0 < late["warm"] < late["cold"] < 0.6
    assert play(ground, "warm")[0] == late["warm"]


def test_a_setting_is_varied_by_name_whosever_it_is():
    assert vary("decide_s", 7.0).decide_s == 7.0 and vary("lean", 1.0).forecast.lean == 1.0
    assert vary("decide_s", None) is DEFAULTS
    with pytest.raises(AttributeError, match="no setting speed"):
        vary("speed", 1.0)
