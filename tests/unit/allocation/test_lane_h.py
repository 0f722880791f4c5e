"""The queueing, the menus and the comparison of the lane with several kinds of hardware; no traces are needed."""

from itertools import pairwise

import numpy as np
import pytest
from benchmarks.lanes import hardware, lane_h
from benchmarks.lanes.hardware import KINDS, TOKEN_S, first_token_s, tokens_per_s
from benchmarks.lanes.lane_h import LARGE, MENUS, SMALL, EqualShare, Judge, Menu, Renter, Row, Tenants, at_slo, measure

from headgate.allocation import punctuality
from headgate.allocation.forecast import PROBABILITIES


@pytest.fixture(autouse=True)
def guesses(monkeypatch):
    """The last window's rate, give or take a tenth."""
    spread = np.linspace(0.9, 1.1, len(PROBABILITIES))[:, None]
    monkeypatch.setattr(lane_h, "guess_rates", lambda last: np.maximum(spread * last, lane_h.LEAST_RATE))


def tenants(rates, *, windows=4, outputs=50.0, billions=None, prompts=100.0) -> Tenants:
    """Pipelines with steady rates."""
    rate = np.tile(np.array(rates, float)[:, None], (1, windows))
    return Tenants(
        rate=rate,
        outputs=np.full(rate.shape, outputs),
        variation=np.ones(rate.shape),
        billions=np.full(len(rates), SMALL) if billions is None else np.array(billions),
        prompts=np.full(len(rates), prompts),
        peak=rate.max(axis=1) * outputs,
    )


def test_parts_on_time_are_those_of_the_product_where_it_has_a_table():
    service = punctuality.Service(mean_s=5.0, variation=1.0, slack=((1.0, 1.0),))
    known = punctuality.table(service, 12)
    parts = lane_h.on_time(np.array([1.0]), np.array([5.0]), np.array([1.0]), 12)[0]
    for streams in (6, 8, 12):
        assert parts[streams] == pytest.approx(known[streams, round(100 * 5.0 / streams)], abs=0.02)
    assert (parts[:6] == 0.0).all() and (np.diff(parts) >= 0.0).all()


def test_bursts_and_long_answers_make_requests_wait():
    calm, wild = lane_h.on_time(np.array([1.0, 1.0]), np.array([5.0, 5.0]), np.array([0.5, 4.0]), 12)
    assert (wild[6:] < calm[6:]).all()


def test_every_kind_costs_draws_and_gives_more_than_a_smaller_one_of_its_pool():
    for pool in hardware.POOLS:
        kinds = [kind for kind in KINDS if kind.pool == pool]
        for small, large in pairwise(kinds):
            assert small.usd_per_hour < large.usd_per_hour and small.tokens_per_s < large.tokens_per_s
    for kind in KINDS:
        watts = kind.watts(np.linspace(0.0, 1.0, 11))
        assert (np.diff(watts) >= 0.0).all() and 0.0 < watts[0] < watts[-1] == pytest.approx(kind.watts_most, rel=0.02)
    assert all(fact.source and fact.date and fact.value > 0.0 for fact in hardware.FACTS.values())


def test_concentrated_load_saves_energy():
    kind = KINDS[-1]
    assert kind.watts(np.float64(0.8)) < 0.75 * 2 * kind.watts(np.float64(0.4))


def test_only_kinds_that_suit_a_pipeline_are_on_its_menu():
    told = tenants([0.05, 0.05, 20.0], billions=[SMALL, LARGE, SMALL])
    menu = Menu.of(told, KINDS)
    for kind, pipeline, streams in zip(menu.kinds, menu.pipeline, menu.streams, strict=True):
        billions = told.billions[pipeline]
        assert streams >= 1.0 and streams == pytest.approx(tokens_per_s(kind, billions) * TOKEN_S)
        assert first_token_s(kind, billions, 100.0) <= 1.0
    names = [{kind.name for kind, owner in zip(menu.kinds, menu.pipeline, strict=True) if owner == i} for i in range(3)]
    assert "2 cores" in names[0] and "2 cores" not in names[1] and "H100 slice" in names[1]
    assert not names[2] & {"2 cores", "4 cores"}  # it needs a hundred streams


def test_a_quiet_small_model_is_given_cores_and_a_busy_one_a_gpu():
    judge = Judge(tenants([0.02, 8.0]))
    policy = Renter(judge, KINDS, usd_per_hour=10.0)
    counts = policy.decide(1)
    pools: list[set[str]] = [set(), set()]
    for k in np.flatnonzero(counts):
        pools[policy.menu.pipeline[k]].add(policy.menu.kinds[k].pool)
    assert pools[0] == {"cpu"} and pools[1] <= {"l40s", "h100"} and pools[1]


def test_no_budget_and_no_cap_on_power_is_exceeded_and_equal_shares_are_no_better():
    judge, free = Judge(tenants([0.02, 0.3, 1.0, 4.0])), 100.0
    for usd in (0.3, 0.6, 1.0, 2.0):
        policy = Renter(judge, KINDS, usd)
        row = measure(judge, policy, [1, 2, 3])
        assert row.usd_per_hour <= usd + 1e-6
        equal = measure(judge, EqualShare(judge, judge, KINDS, usd), [1, 2, 3])
        assert equal.usd_per_hour <= usd + 1e-6 and row.slo >= equal.slo - 1e-3
    policy = Renter(judge, KINDS, free, watts=150.0)
    assert measure(judge, policy, [1, 2]).watts_most <= 150.0


def test_more_kinds_are_never_worse():
    judge = Judge(tenants([0.02, 0.05, 0.3, 4.0]))
    for usd in (0.6, 1.0):
        rows = {name: measure(judge, Renter(judge, MENUS[name], usd), [1, 2]) for name in ("Headgate", "GPU-only")}
        assert rows["Headgate"].slo >= rows["GPU-only"].slo - 1e-3


def test_what_an_slo_costs_lies_on_the_line_between_two_budgets():
    rows = [
        Row(slo=slo, usd_per_hour=1.0, usd=usd, joules=10 * usd, watts_most=1.0) for slo, usd in ((0.5, 1), (0.9, 3))
    ]
    assert at_slo(rows, 0.7).usd == pytest.approx(2.0) and at_slo(rows, 0.7).joules == pytest.approx(20.0)
    assert at_slo(rows, 0.4) == rows[0] and at_slo(rows, 0.9).usd == pytest.approx(3.0)


def test_nothing_held_is_nothing_on_time_and_costs_nothing():
    judge = Judge(tenants([0.5]))
    row = measure(judge, Renter(judge, KINDS, 0.0), [1, 2])
    assert row.slo == 0.0 and row.usd_per_hour == 0.0 and row.watts_most == 0.0
