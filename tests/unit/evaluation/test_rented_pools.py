"""What if capacity is paid for by use: what is held, what it costs, and the fewest that would have done."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from headgate.core.errors import BadRequest
from headgate.evaluation.report import write_report
from headgate.evaluation.simulation import POLICIES, simulate
from headgate.evaluation.splits import count_minutes, fewest_fixed, play_alone
from headgate.evaluation.traces import Trace
from headgate.evaluation.what_if import Case, Rent, Terms, build_cases
from tests.unit.evaluation.test_simulation import make, stream, swing

RENT = Rent(price_per_hour=3.0)


def bursts(span_s: float = 2400.0) -> Trace:
    """One pipeline that works all the time, and one that works for three minutes."""
    rng = np.random.default_rng(6)
    busy, rare = rng.uniform(0, span_s, int(span_s)), rng.uniform(900, 1080, 400)
    return make(stream("busy", np.sort(busy)), stream("rare", np.sort(rare)), span_s=span_s)


def case_of(trace: Trace, rent: Rent | None, devices: float | None = None, **terms: object) -> Case:
    told = {one.pipeline: Terms(**{"first_token_s": 2.0, **terms}) for one in trace.streams}  # type: ignore[arg-type]
    there = {} if devices is None else {"cpu": devices}
    (case,) = build_cases(trace, told, there, {} if rent is None else {"cpu": rent})
    return case


def test_only_what_is_held_is_paid_for_and_it_is_less_than_the_fewest_that_never_change() -> None:
    case = case_of(bursts(), RENT)
    found = {one.policy: one for one in simulate(case, list(POLICIES))}
    hours = case.span_s / 3600.0
    for one in found.values():
        assert one.money == pytest.approx(3.0 * one.device_hours)
        assert one.device_hours <= case.budget * hours + 1e-9
    assert found["equal"].device_hours == pytest.approx(case.budget * hours)
    headgate, static = found["headgate"], found["static"]
    assert static.slo_minutes >= 0.99
    assert headgate.money is not None and static.money is not None and headgate.money < 0.7 * static.money
    assert headgate.slo_minutes > 0.85  # nobody is known in the first hour
    assert headgate.replicas[:80, 1].max() == 0.0 < headgate.replicas[95:105, 1].min()
    again = simulate(case, ["headgate"])[0]
    assert (again.late, again.money) == (headgate.late, headgate.money)


def test_the_fewest_that_keep_the_promise_are_found() -> None:
    case = case_of(bursts(), RENT, 12.0)
    found = fewest_fixed(case, 0.99).tolist()
    for one, count in zip(case.served, found, strict=True):
        kept = {n: count_minutes(one, play_alone(one, n, case.span_s)) for n in range(1, count + 1)}
        enough = [n for n, (within, busy) in kept.items() if within >= 0.99 * busy]
        assert enough == [count]
    tight = replace(case, budget=2, served=tuple(replace(one, cap=2) for one in case.served))
    assert fewest_fixed(tight, 0.99).sum() == 2  # the best split of what there is


def test_minutes_are_kept_with_no_more_than_a_hundredth_late() -> None:
    (one,) = case_of(make(stream("a", np.arange(0.0, 180.0, 0.5)), span_s=240.0), RENT).served
    missed = np.zeros(360, bool)
    missed[[0, 120, 121]] = True  # one of 120 in the first minute, two in the second
    assert count_minutes(one, missed) == (2, 3)


def test_the_dearer_the_less_is_held() -> None:
    trace = make(stream("a", np.arange(0.0, 4800.0, 600.0)), span_s=4800.0)
    low, high = (simulate(case_of(trace, Rent(price_per_hour=price)), ["headgate"])[0] for price in (1, 60))
    assert low.device_hours > 1.5 * high.device_hours and low.slo_minutes > high.slo_minutes


def test_what_costs_nothing_is_given_out_as_what_is_there() -> None:
    fixed, free = (case_of(swing(), rent, 4.0) for rent in (None, Rent(price_per_hour=0.0)))
    ours, theirs = (simulate(case, ["headgate"])[0] for case in (fixed, free))
    assert ours.money is None is theirs.money
    assert (ours.late, ours.latency, ours.device_hours) == (theirs.late, theirs.latency, theirs.device_hours)
    assert any("at no price" in text for text in free.notes)


def test_replicas_of_two_sizes_are_rented_by_their_size() -> None:
    terms = {"a": Terms(share=1.0, first_token_s=2.0), "b": Terms(share=0.5, first_token_s=2.0, floor=1)}
    (case,) = build_cases(swing(), terms, {"cpu": 3.0}, {"cpu": RENT})
    (one,) = simulate(case, ["headgate"])
    used = one.replicas @ np.array([part.units for part in case.served]) * case.unit
    assert used.max() <= 3.0 + 1e-9 and one.replicas[1:, 1].min() >= 1.0
    assert one.device_hours == pytest.approx(used.mean() * case.span_s / 3600.0, rel=0.1)


def test_capacity_and_what_is_assumed_are_told() -> None:
    case = case_of(bursts(), RENT)
    text = "; ".join(case.notes)
    assert case.budget >= 4
    for said in ("at most", "2 times what the busiest minute takes (--pools)", "paid for by use: 3 for an hour",
                 "0.99 of the minutes", "what is not held costs nothing", "fewest replicas"):  # fmt: skip
        assert said in text
    assert [one.floor for one in case.served] == [0, 0]
    assert "(--pools)" not in case_of(bursts(), RENT, 4.0).notes[0]
    page = write_report(bursts(), [case], [simulate(case, ["static", "equal"])])
    assert "minutes kept" in page and "money" in page
    with pytest.raises(BadRequest, match="No pipeline of the trace runs on pool gpu") as caught:
        build_cases(bursts(), {"busy": Terms(), "rare": Terms()}, {}, {"gpu": RENT})
    assert caught.value.param == "rent"


def test_a_floor_is_held_all_the_time() -> None:
    case = case_of(bursts(), RENT, floor=1)
    one = simulate(case, ["headgate"])[0]
    assert one.replicas.min() >= 1.0
