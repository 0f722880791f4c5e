"""Lane S: what is drawn from the trace, and who decides about elastic capacity."""

import numpy as np
import pytest
from benchmarks.lanes.elastic import Units, run
from benchmarks.lanes.elastic_bounds import fewest_constant, offered, schedule
from benchmarks.lanes.elastic_headgate import Headgate
from benchmarks.lanes.elastic_rules import HPA, KEDA, KPA, Constant, LoadAndHeadroom, RayServe, SageServe
from benchmarks.lanes.serve_gen import WINDOW_S, ServeGen


def trace(rate: float, cv: float = 1.0, windows: int = 3, weibull_shape: float | None = None) -> ServeGen:
    """One pipeline with the same rate in all windows."""
    whole = np.full((1, windows), rate)
    lengths = np.full((1, windows, 4), 100.0)
    return ServeGen(
        names=("one",),
        first=0,
        rate=whole,
        cv=np.full_like(whole, cv),
        weibull=np.full(whole.shape, weibull_shape is not None),
        shape=np.full_like(whole, weibull_shape or cv**-2.0),
        inputs=lengths,
        outputs=lengths,
    )


@pytest.mark.parametrize("rate", [0.02, 1.5, 300.0])
def test_every_window_has_the_requests_that_the_trace_counted(rate: float) -> None:
    counts = trace(rate).counts(seed=1).reshape(3, -1)
    assert counts.sum(axis=1).tolist() == [round(rate * WINDOW_S)] * 3


def test_a_part_of_the_trace_draws_the_same_requests() -> None:
    whole = trace(2.0, windows=4)
    assert np.array_equal(whole.windows(2, 4).counts(seed=3), whole.counts(seed=3)[:, 1200:])
    assert not np.array_equal(whole.counts(seed=3), whole.counts(seed=4))


@pytest.mark.parametrize(
    ("rate", "cv", "shape"),
    [(5.0, 1.0, None), (5.0, 2.0, None), (200.0, 2.0, None), (5.0, 2.2361, 0.5), (200.0, 2.2361, 0.5)],
)
def test_gaps_vary_as_much_as_the_trace_says(rate: float, cv: float, shape: float | None) -> None:
    """In a renewal process the counts of long steps vary by cv squared of their mean."""
    counts = trace(rate, cv, windows=200, weibull_shape=shape).counts(seed=5, step_s=10.0)[0]
    assert counts.var() / counts.mean() == pytest.approx(cv**2, rel=0.2)


def test_steps_must_divide_a_window() -> None:
    with pytest.raises(ValueError, match="step_s"):
        trace(1.0).counts(seed=1, step_s=7.0)


UNITS = Units(start_s=3, slots=4)


def steady(rate: float, seconds: int = 1800, seed: int = 0) -> np.ndarray:
    """Poisson arrivals of one pipeline, [1, steps]."""
    return np.random.default_rng(seed).poisson(rate, (1, seconds)).astype(np.int32)


def play(counts, policy, service_s=2.0, units=UNITS):
    return run(counts, np.full((len(counts), -(-counts.shape[1] // 600)), service_s), 600, policy, units)


def test_with_room_for_all_nobody_is_late_and_units_are_paid_by_the_hour():
    outcome = play(steady(1.0), Constant(np.array([20])))
    assert outcome.slo_minutes == 1.0 and outcome.late_by.sum() == 0
    assert outcome.unit_hours[0] == pytest.approx(10.0) and outcome.moves.sum() == 0


def test_under_more_load_than_slots_nearly_all_are_late():
    outcome = play(steady(8.0), Constant(np.array([2])))  # 16 slots wanted, 8 there
    assert outcome.slo_minutes < 0.1 and outcome.late_by.sum() > 0.8 * outcome.came_by.sum()


def test_the_wait_is_what_queueing_theory_says():
    """Erlang's C formula; to the second, a request has 2 to 3 s."""
    servers, busy, mean_s = 16, 14.0, 8.0
    blocked = 1.0
    for server in range(1, servers + 1):
        blocked = busy * blocked / (server + busy * blocked)
    waits = blocked / (1.0 - busy / servers * (1.0 - blocked))
    late = waits * np.exp(-(servers - busy) / mean_s * np.linspace(2.0, 3.0, 101)).mean()
    outcome = play(steady(busy / mean_s, 200_000), Constant(np.array([4])), service_s=mean_s)
    assert outcome.late_by.sum() / outcome.came_by.sum() == pytest.approx(late, rel=0.15)


@pytest.mark.parametrize(("start_s", "late"), [(1, 0), (3, 1), (35, 1)])
def test_a_request_that_finds_no_unit_wakes_one_and_waits_for_its_start(start_s, late):
    counts = np.zeros((1, 300), np.int32)
    counts[0, 100] = 1
    units = Units(start_s=start_s, patience_s=60)
    outcome = play(counts, KEDA(units, 1, calm_s=60), units=units)
    assert outcome.late_by.sum() == late and outcome.moves[0] == 2
    assert 60 <= outcome.unit_hours[0] * 3600 <= 60 + 2 * start_s + 40


def test_a_released_unit_is_paid_until_it_is_empty():
    class Drop:
        decide_s, wake, first = 60, False, np.array([4])

        def decide(self, look):
            return np.array([4 if look.now < 60 else 1])

    outcome = play(np.full((1, 120), 1, np.int32), Drop(), service_s=10.0)
    assert 4 * 60 + 60 < outcome.unit_hours[0] * 3600 < 4 * 120


RULES = (
    HPA, KEDA, KPA, RayServe, LoadAndHeadroom, SageServe,
    lambda units, count: Headgate(units, count, price=0.02),
)  # fmt: skip


@pytest.mark.parametrize("make", RULES)
def test_every_policy_follows_a_load_up_and_down(make):
    counts = np.concatenate([steady(0.5), steady(12.0), steady(0.5, 5400)], axis=1)
    policy = make(UNITS, 1)
    seen = []
    decide = policy.decide
    policy.decide = lambda look: seen.append((look.now, int((said := decide(look))[0]))) or said
    outcome = play(counts, policy)
    middle = np.mean([units for now, units in seen if 2400 <= now < 3600])
    after = np.mean([units for now, units in seen if now >= 7200])
    assert 6 <= middle <= 16 and after <= 3
    assert outcome.kept[0, 40:60].mean() > 0.5


def calls(every_s: int, seconds: int) -> np.ndarray:
    """One request every so many seconds, [1, steps]."""
    counts = np.zeros((1, seconds), np.int32)
    counts[0, ::every_s] = 1
    return counts


@pytest.mark.parametrize(("every_s", "least", "most"), [(40, 0.95, 1.0), (3000, 0.0, 0.5)])
def test_a_unit_stays_for_who_comes_again_soon_and_not_for_who_seldom_does(every_s, least, most):
    outcome = play(calls(every_s, 36_000), Headgate(UNITS, 1, price=0.05, promised=None))
    assert least <= outcome.unit_hours[0] / outcome.hours <= most


def test_a_unit_goes_when_silence_lasts_longer_than_those_before_it():
    counts = np.concatenate([calls(40, 20_000), np.zeros((1, 20_000), np.int32)], axis=1)
    hours = play(counts, Headgate(UNITS, 1, price=0.05, promised=None)).unit_hours[0]
    assert 20_000 / 3600 <= hours <= 26_000 / 3600


def test_a_higher_price_keeps_fewer_units_and_fewer_minutes():
    chance = np.random.default_rng(2)
    counts = (chance.random((40, 14_400)) < 0.01).astype(np.int32)
    dear, cheap = (play(counts, Headgate(UNITS, 40, price=price, promised=None)) for price in (0.6, 0.02))
    assert dear.unit_hours.sum() < cheap.unit_hours.sum() and dear.slo_minutes < cheap.slo_minutes


def test_who_calls_many_units_again_and_again_finds_them_there():
    counts = np.zeros((1, 14_400), np.int32)
    counts[0, 30::200] = 40
    outcome = play(counts, Headgate(UNITS, 1, price=0.01, promised=None), service_s=1.0)
    asked = play(counts, Headgate(UNITS, 1, price=10.0, promised=None), service_s=1.0)
    assert outcome.slo_minutes > 0.8 and asked.slo_minutes < 0.3


def test_fewest_constant_units_are_enough_and_one_less_is_not():
    counts = np.concatenate([steady(6.0, 6000), np.zeros((1, 6000), np.int32)])
    units = fewest_constant(lambda policy, units: play(counts, policy, units=units), UNITS, 2)
    assert units[1] == 0
    assert play(counts, Constant(units)).slo_minutes >= 0.99 > play(counts, Constant(units - 1)).slo_minutes


def test_who_knows_the_future_pays_less_than_constant_units():
    counts = np.concatenate([steady(0.5), steady(12.0), steady(0.5)], axis=1)
    load = offered(counts, np.full((1, 9), 2.0), 600, UNITS.slots)
    assert load.mean() == pytest.approx((0.5 + 12.0 + 0.5) / 3 * 2.0 / 4, rel=0.1)
    units_by, outcome = schedule(
        lambda policy, units: play(counts, policy, units=Units(start_s=0, slots=4)), load, 0.95
    )
    assert outcome.slo_minutes >= 0.95 and units_by[0, 35] > units_by[0, 5]
    constant = fewest_constant(lambda policy, units: play(counts, policy, units=units), UNITS, 1)
    assert outcome.unit_hours.sum() < 0.7 * play(counts, Constant(constant)).unit_hours.sum()
