"""Forecasts: calm where the past was calm, wide where it was not, quick where waiting was wrong."""

from __future__ import annotations

import numpy as np
import pytest

from headgate.allocation.forecast import PROBABILITIES, WEIGHTS, Forecaster, Forecasts, Window

SOON = Window(begins_s=0.0, ends_s=30.0)
LATER = Window(begins_s=30.0, ends_s=90.0)


def feed(rates: np.ndarray, tick_s: float = 10.0, seed: int = 1) -> Forecaster:
    rng = np.random.default_rng(seed)
    forecaster = Forecaster()
    for rate in rates:
        forecaster.learn(float(rng.poisson(rate * tick_s)), tick_s)
        forecaster.forecast(SOON)
        forecaster.forecast(LATER)
    return forecaster


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


def test_after_a_step_the_forecast_follows_within_a_minute() -> None:
    told = feed(np.concatenate([np.full(120, 5.0), np.full(6, 25.0)])).forecast(SOON)
    assert told[-1] > 20.0


def test_errors_are_those_of_windows_that_have_passed() -> None:
    forecaster = Forecaster()
    for _ in range(20):
        forecaster.learn(50.0, 10.0)
        forecaster.forecast(SOON)
    quantiles = np.array(forecaster.forecast(SOON))
    assert quantiles == pytest.approx(np.full(7, 5.0), rel=1e-6)  # exactly even arrivals: no error at all


def test_counts_without_time_are_kept_for_the_next_tick() -> None:
    forecaster = Forecaster()
    forecaster.learn(10.0, 10.0)
    forecaster.learn(7.0, 0.0)
    forecaster.learn(3.0, 10.0)
    assert forecaster.forecast(SOON)[3] == pytest.approx(1.0, rel=0.5)


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
