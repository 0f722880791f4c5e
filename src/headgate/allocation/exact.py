"""Exact methods, for the background and for tests: the linear relaxation, and mixed-integer programming by HiGHS.

A pipeline's mixes are the columns: each has one of them, and together they fit the pools. What must be looked at is
little, because a mix whose regret at some prices is more than the gap of a known answer cannot be in a better one.
Needs highspy (the extra `sim`). Not for a turn of the control loop: it may take as many seconds as it is given.
Source: columns for each part and fixing by reduced cost (L. Wolsey, Integer Programming, 2nd ed., 2020, ch. 7, 11).
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import numpy as np

from headgate.allocation.arrays import Floats, Ints
from headgate.allocation.bound import Bound, find_bound
from headgate.allocation.exchange import Effort, choose_mixes
from headgate.allocation.mixes import SLACK, Menu, Mixes
from headgate.allocation.offer import near_mixes
from headgate.allocation.problem import Problem, Solution, worth_by_class
from headgate.allocation.solver import Answer, solve_classes
from headgate.core.errors import ConfigError

_ROUNDS = 8
_EXACT = 1e-9
_QUICK = Effort(whole=0)  # what is proven here does not lean on the search that proves small cases in `solve`


def solve_relaxed(problem: Problem) -> Solution:
    """The solution with the prices and the bound of the linear relaxation, in which a pipeline may mix its mixes.

    No prices prove less: they serve a next `solve` to begin with. Raises ConfigError where highspy is missing.
    """
    highs = _load_highs()

    def method(menu: Menu, room: Floats, warm: Floats | None) -> Answer:
        mixes, proof = _relax(highs, menu, room, warm)
        chosen = choose_mixes(mixes, proof, room, menu.seats, _QUICK)
        return Answer.of(mixes, proof.prices, chosen.mix, chosen.bound)

    return solve_classes(problem, None, method)


def solve_exact(problem: Problem, seconds: float, prices: Floats | None = None) -> Solution:
    """The best allocation, class by class, or the best that `seconds` of looking for each class find, and its bound.

    `prices` [R, P] of an earlier solution make it faster. Raises ConfigError where highspy is missing.
    """
    highs = _load_highs()

    def method(menu: Menu, room: Floats, warm: Floats | None) -> Answer:
        mixes, proof = find_bound(menu, room, warm)
        chosen = choose_mixes(mixes, proof, room, menu.seats, _QUICK)
        value = float(mixes.worth[chosen.mix].sum())
        if chosen.bound - value <= _EXACT * abs(value):
            return Answer.of(mixes, proof.prices, chosen.mix, chosen.bound)
        # Each mix of a better answer has less regret than the whole gap.
        near = near_mixes(menu, proof.prices, proof.value - value + SLACK)
        others = Bound.of(near, room, proof.prices)
        found, limit = _choose_exactly(highs, near, room, seconds)
        better = max(value, float(near.worth[found].sum()))
        bound = min(chosen.bound, max(limit, others.value - others.margin, better))
        if better > value:
            return Answer.of(near, proof.prices, found, bound)
        return Answer.of(mixes, proof.prices, chosen.mix, bound)

    return solve_classes(problem, prices, method)


def tighten(problem: Problem, solution: Solution, seconds: float) -> Solution:
    """The better one of `solution` and what `seconds` of exact search find for each class, with the tighter bound.

    With several classes, bounds are given what earlier classes took: then it keeps its own. Raises ConfigError where
    highspy is missing.
    """
    exact = solve_exact(problem, seconds, solution.prices)
    if len(np.unique(problem.rank)) > 1:
        first, second = (worth_by_class(problem, one.counts) for one in (exact, solution))
        return exact if first > second else solution
    bound = min(exact.bound, solution.bound)
    better = exact if exact.value > solution.value else solution
    return replace(better, bound=max(bound, better.value))


def _relax(highs: Any, menu: Menu, room: Floats, warm: Floats | None) -> tuple[Mixes, Bound]:
    """The mixes and the bound of the linear relaxation: its dual values are the best prices there are."""
    mixes, best = find_bound(menu, room, warm)
    reach = max(best.value - float(mixes.worth[mixes.firsts(best.regret <= 0.0)].sum()), SLACK)
    for _ in range(_ROUNDS):
        model = _run(highs, mixes, room)
        prices = np.maximum(np.array(model.getSolution().row_dual[len(mixes.first) :]), 0.0)
        proof = Bound.of(mixes, room, prices)
        best = min(best, proof, key=lambda one: one.value)
        if best.value - model.getInfo().objective_function_value <= _EXACT * abs(best.value):
            break
        mixes, reach = near_mixes(menu, prices, reach), 2.0 * reach
    return mixes, Bound.of(mixes, room, best.prices)


def _choose_exactly(highs: Any, mixes: Mixes, room: Floats, seconds: float) -> tuple[Ints, float]:
    """The mix [I] of each pipeline that together are worth most, and what none exceeds, as far as `seconds` tell."""
    model = _run(highs, mixes, room, seconds)
    taken = np.array(model.getSolution().col_value)
    found = mixes.firsts(taken >= np.maximum.reduceat(taken, mixes.first)[mixes.owner])
    return found, float(model.getInfo().mip_dual_bound)


def _run(highs: Any, mixes: Mixes, room: Floats, seconds: float | None = None) -> Any:
    """The model, solved: how much of each mix is taken; whole ones only where `seconds` are given.

    Rows: each pipeline has one mix in all, then each pool holds what is used.
    """
    columns, pipelines = len(mixes.owner), len(mixes.first)
    used = mixes.use.T > 0.0
    lengths = 1 + used.sum(axis=1)
    rows = np.empty(int(lengths.sum()), np.int32)
    parts = np.empty(len(rows))
    starts = np.concatenate([[0], np.cumsum(lengths)])
    head = np.zeros(len(rows), np.bool_)
    head[starts[:-1]] = True
    rows[head], parts[head] = mixes.owner, 1.0
    rows[~head], parts[~head] = pipelines + np.nonzero(used)[1], mixes.use.T[used]
    program = highs.HighsLp()
    program.num_col_, program.num_row_ = columns, pipelines + len(room)
    program.sense_ = highs.ObjSense.kMaximize
    program.col_cost_ = mixes.worth
    program.col_lower_, program.col_upper_ = np.zeros(columns), np.ones(columns)
    program.row_lower_ = np.append(np.ones(pipelines), np.full(len(room), -highs.kHighsInf))
    program.row_upper_ = np.append(np.ones(pipelines), room)
    matrix = program.a_matrix_
    matrix.format_ = highs.MatrixFormat.kColwise
    matrix.start_, matrix.index_, matrix.value_ = starts.astype(np.int32), rows, parts
    model = highs.Highs()
    model.silent()
    model.setOptionValue("threads", 1)
    if seconds is not None:
        program.integrality_ = [highs.HighsVarType.kInteger] * columns
        model.setOptionValue("time_limit", seconds)
        model.setOptionValue("mip_rel_gap", _EXACT)
    model.passModel(program)
    model.run()
    return model


def _load_highs() -> Any:
    """The package highspy. Why so late: a turn needs no exact method, and most houses do not have it."""
    try:
        return importlib.import_module("highspy")
    except ImportError:
        raise ConfigError(
            "Exact allocation needs one more package. Install it with: pip install 'headgate[sim]'"
        ) from None
