import sys
from dataclasses import replace

import numpy as np
import pytest

from headgate.allocation.exact import solve_exact, solve_relaxed, tighten
from headgate.allocation.solver import Effort, solve
from headgate.core.errors import ConfigError
from tests.unit.allocation.test_solver import TINY, check, exact_by_mip, exact_one_pool, make, plain

LAZY = Effort(rounds=0, whole=0, cells=0)


@pytest.mark.parametrize("seed", range(12))
def test_the_exact_answer_is_that_of_a_model_with_all_mixes(seed):
    problem = make(seed, pipelines=7, pools=3, most_options=3, cap=4, even=bool(seed % 2))
    solution = solve_exact(problem, 20.0)
    check(problem, solution)
    if not solution.unseated.any():
        assert solution.value == pytest.approx(exact_by_mip(problem), abs=TINY)
        assert solution.gap < 1e-8


@pytest.mark.parametrize("seed", range(12))
def test_the_exact_answer_is_that_of_dynamic_programming(seed):
    problem = make(seed, pipelines=20, pools=1, most_options=1, points=17, cap=12)
    problem = replace(problem, units=np.ones(20), floor=np.zeros(20), capacity=np.array([30.0]))
    solution = solve_exact(problem, 20.0)
    assert solution.value == pytest.approx(exact_one_pool(problem), abs=TINY)
    assert solution.gap < 1e-8


@pytest.mark.parametrize("seed", range(20))
def test_what_is_quickly_found_is_near_the_exact_answer_and_bounded_by_no_less(seed):
    problem = make(seed, pipelines=30, pools=3, most_options=3, cap=8, even=bool(seed % 2))
    quick, exact = solve(problem, effort=Effort(cells=0)), solve_exact(problem, 20.0)
    assert quick.value <= exact.bound + TINY
    assert quick.bound >= exact.value - TINY
    assert exact.value >= quick.value - TINY
    assert quick.value >= exact.value - 0.005 * abs(exact.value)
    assert exact.gap < 1e-6


@pytest.mark.parametrize("seed", range(12))
def test_the_relaxation_proves_no_more_than_the_prices_found_without_it_allow(seed):
    problem = make(seed, pipelines=30, pools=3, most_options=3, cap=8)
    relaxed, lazy, exact = solve_relaxed(problem), solve(problem, effort=LAZY), solve_exact(problem, 20.0)
    check(problem, relaxed)
    assert exact.value - TINY <= relaxed.bound <= lazy.bound + TINY
    # Newton's prices are good: the best there are prove hardly more.
    assert lazy.bound <= relaxed.bound * 1.002


def test_prices_of_the_relaxation_serve_the_next_solve():
    problem = make(3, pipelines=40, pools=4, most_options=3, cap=8)
    assert solve(problem, prices=solve_relaxed(problem).prices).gap <= 0.01


def test_tightening_returns_the_better_answer_with_the_tighter_bound():
    improved = 0
    for seed in range(10):
        problem = make(seed, pipelines=20, pools=2, most_options=2, cap=6)
        lazy = solve(problem, effort=LAZY)
        better = tighten(problem, lazy, 20.0)
        check(problem, better)
        assert better.value >= lazy.value
        assert better.bound <= lazy.bound + TINY
        assert better.gap < 1e-6
        improved += better.value > lazy.value + TINY or better.bound < lazy.bound - TINY
    assert improved > 5


def test_tightening_keeps_what_it_cannot_better():
    problem = make(1, pipelines=6, pools=2)
    exact = solve_exact(problem, 20.0)
    assert tighten(problem, exact, 20.0).counts.tolist() == exact.counts.tolist()


def test_tightening_looks_at_the_first_class_first():
    problem = plain([[0, 0.1, 0.2, 0.2], [0, 50, 60, 70]], capacity=3, rank=[0, 1])
    served_wrongly = solve(replace(problem, rank=np.array([0, 0])))
    assert served_wrongly.counts.tolist() == [0, 3]
    assert tighten(problem, served_wrongly, 20.0).counts.tolist() == [2, 1]


def test_without_time_the_answer_is_what_was_known_and_its_bound_holds():
    problem = make(5, pipelines=60, pools=4, most_options=3, cap=8)
    known, exact = solve(problem, effort=Effort(whole=0, cells=0)), solve_exact(problem, 0.0)
    check(problem, exact)
    assert exact.value >= known.value - TINY
    assert exact.bound <= known.bound + TINY


def test_without_highspy_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "highspy", None)
    with pytest.raises(ConfigError, match=r"headgate\[sim\]"):
        solve_exact(make(1), 1.0)
