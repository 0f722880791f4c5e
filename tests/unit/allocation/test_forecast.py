"""Forecasts: calm where the past was calm, wide where it was not, quick where waiting was wrong."""

from __future__ import annotations

import numpy as np
import pytest

from headgate.allocation.forecast import DEFAULTS, PROBABILITIES, WEIGHTS, Forecasts, ForecastSettings, Window

SOON = Window(begins_s=0.0, ends_s=30.0)
LATER = Window(begins_s=30.0, ends_s=90.0)


class One:
    """The forecasts of one pipeline."""

    def __init__(self, settings: ForecastSettings = DEFAULTS) -> None:
        self._all = Forecasts(settings)

    def learn(self, arrivals: float, elapsed_s: float) -> None:
        self._all.learn({"one": arrivals}, elapsed_s)

    def forecast(self, window: Window) -> tuple[float, ...]:
        return self._all.forecast("one", [window])[0]


def feed(rates: np.ndarray, tick_s: float = 10.0, seed: int = 1, settings: ForecastSettings = DEFAULTS) -> One:
    rng = np.random.default_rng(seed)
    one = One(settings)
    for rate in rates:
        one.learn(float(rng.poisson(rate * tick_s)), tick_s)
        one.forecast(SOON)
        one.forecast(LATER)
    return one


def test_the_weights_are_a_distribution_and_quantiles_rise() -> None:
    assert sum(WEIGHTS) == pytest.approx(1.0) and len(WEIGHTS) == len(PROBABILITIES)
    told = feed(np.full(60, 5.0)).forecast(SOON)
    assert list(told) == sorted(told)


def test_steady_load_is_forecast_narrowly_and_rightly() -> None:
    told = feed(np.full(200, 20.0)).forecast(LATER)
    assert told[3] == pytest.approx(20.0, rel=0.1)
    assert told[-1] / told[0] < 1.35


def test_wild_load_is_forecast_widely() -> None:
    rng = np.random.default_rng(7)
    wild = np.repeat(rng.choice([4.0, 20.0], 60), 6)
    told = feed(wild).forecast(LATER)
    assert told[-1] / told[0] > 2.5


def test_a_load_that_moves_is_forecast_more_widely_before_any_forecast_of_it_was_wrong() -> None:
    calm = feed(np.full(200, 20.0)).forecast(LATER)
    falls = feed(np.concatenate([np.full(200, 20.0), np.full(2, 12.0)])).forecast(LATER)
    assert falls[-1] / falls[0] > 1.1 * calm[-1] / calm[0]


def test_after_a_step_the_forecast_follows_within_a_minute() -> None:
    told = feed(np.concatenate([np.full(120, 5.0), np.full(6, 25.0)])).forecast(SOON)
    assert told[-1] > 20.0


def test_errors_are_those_of_windows_that_have_passed() -> None:
    told = {ticks: feed_evenly(ticks).forecast(SOON) for ticks in (4, 20, 600)}
    width = {ticks: quantiles[-1] / quantiles[0] for ticks, quantiles in told.items()}
    assert width[4] > width[20] > width[600]  # exactly even arrivals: no error at all, which takes windows to know
    assert np.array(told[600]) == pytest.approx(np.full(7, 5.0), rel=0.03)


def feed_evenly(ticks: int) -> One:
    one = One()
    for _ in range(ticks):
        one.learn(50.0, 10.0)
        one.forecast(SOON)
    return one


def test_a_swing_is_foretold_once_it_has_been_seen() -> None:
    seconds = np.arange(0.0, 7200.0, 10.0)
    rates = 20.0 * (1.0 + 0.8 * np.sin(seconds * 2.0 * np.pi / 1200.0))
    one, rng, errors, stays = One(), np.random.default_rng(3), [], []
    for now, rate in enumerate(rates[:-9]):
        one.learn(float(rng.poisson(rate * 10.0)), 10.0)
        told = one.forecast(LATER)[3]
        came = float(rates[now + 4 : now + 10].mean())
        if seconds[now] > 3600.0:
            errors.append(abs(np.log(told / came)))
            stays.append(abs(np.log(rate / came)))
    assert np.mean(errors) < 0.5 * np.mean(stays)


def test_what_only_ever_rose_is_not_foretold_to_rise_for_ever() -> None:
    far = Window(begins_s=120.0, ends_s=250.0)
    one, times = One(), []
    for rate in 2.0 * np.exp(np.arange(0.0, 2400.0, 10.0) / 300.0):
        one.learn(rate * 10.0, 10.0)
        times.append(one.forecast(far)[3] / rate)
    assert 1.1 < max(times) < 1.9  # it does rise 1.85 times until then; a rule that is not held says 2.3


def test_a_load_that_jumps_is_not_expected_above_where_it_ever_was() -> None:
    jumps = np.repeat(np.random.default_rng(5).choice([2.0, 2.0, 2.0, 20.0], 60), 12)
    for window in (SOON, LATER):
        assert 15.0 < feed(np.append(jumps, [20.0] * 3)).forecast(window)[-1] < 1.2 * 20.0  # errors alone say 130


def test_counts_without_time_are_kept_for_the_next_tick() -> None:
    one = One()
    one.learn(10.0, 10.0)
    one.learn(7.0, 0.0)
    one.learn(3.0, 10.0)
    assert one.forecast(SOON)[3] == pytest.approx(1.0, rel=0.5)


def test_pipelines_that_are_gone_are_forgotten() -> None:
    forecasts = Forecasts()
    forecasts.learn({"a": 5.0, "b": 1.0}, 1.0)
    forecasts.learn({"b": 1.0}, 1.0)
    assert forecasts.forecast("b", [SOON, LATER])[0][3] > 0.0
    with pytest.raises(KeyError):
        forecasts.forecast("a", [SOON])


def test_a_rise_that_comes_every_ten_minutes_is_foreseen_and_one_that_does_not_is_not() -> None:
    minutes = np.tile(np.array([5.0] * 9 + [15.0]), 12)
    rates = np.repeat(minutes, 6)
    before_a_rise = rates[: -6 - 3]  # half a minute before the last one
    rhythmic = feed(before_a_rise).forecast(LATER)
    assert rhythmic[3] > 8.0
    shuffled = np.repeat(np.random.default_rng(3).permutation(minutes), 6)[: -6 - 3]
    shuffled[-30:] = 5.0
    assert feed(shuffled).forecast(LATER)[3] < 7.5


def test_what_comes_to_others_changes_nothing_that_was_counted_and_little_that_is_forecast() -> None:
    rng = np.random.default_rng(4)
    alone, among = Forecasts(), Forecasts()
    for _ in range(120):
        came = {name: float(rng.poisson(rate)) for name, rate in (("a", 50.0), ("b", 4.0), ("c", 500.0))}
        alone.learn({"b": came["b"]}, 10.0)
        among.learn(came, 10.0)
        told = alone.forecast("b", [SOON])[0], among.forecast("b", [SOON])[0]
    assert told[0][3] == pytest.approx(told[1][3], rel=0.2)


def test_a_pipeline_that_joins_later_is_forecast_as_if_it_had_begun_then() -> None:
    joined = Forecasts()
    for tick in range(100):
        names = {"a": 100.0} if tick < 60 else {"a": 100.0, "late": 30.0}
        joined.learn(names, 10.0)
        for name in names:
            joined.forecast(name, [SOON, LATER])
    assert joined.forecast("late", [SOON, LATER])[0] == pytest.approx(np.full(7, 3.0), rel=0.2)
    assert joined.forecast("a", [SOON])[0] == pytest.approx(np.full(7, 10.0), rel=0.1)


def test_the_order_of_pipelines_does_not_matter() -> None:
    rng = np.random.default_rng(9)
    one, other = Forecasts(), Forecasts()
    for _ in range(80):
        came = {"a": float(rng.poisson(20.0)), "b": float(rng.poisson(90.0))}
        one.learn(came, 5.0)
        other.learn(dict(reversed(came.items())), 5.0)
        told = one.forecast("b", [SOON, LATER]), other.forecast("b", [SOON, LATER])
    assert told[0] == told[1]


def test_a_level_that_returns_to_its_mean_is_learned() -> None:
    rng = np.random.default_rng(6)
    log, rates = 0.0, []
    for _ in range(900):  # half of each excess is gone after 50 s
        log = 0.87 * log + 0.25 * rng.standard_normal()
        rates.append(30.0 * np.exp(log))
    after_a_peak = np.concatenate([rates, np.full(3, 120.0)])
    assert 25.0 < feed(after_a_peak).forecast(LATER)[3] < 85.0
