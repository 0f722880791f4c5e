"""Counts that somebody with more time found for a like problem: taken where they are better in the present one.

Whether a proposal is old does not matter: it is judged by the problem at hand, the starts and stops that it would take
included, and it is part of the State, so decisions replay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from headgate.allocation.arrays import Ints
from headgate.allocation.mixes import SLACK
from headgate.allocation.problem import Problem, Solution, worth_by_class, worth_of

Proposal = Mapping[str, Mapping[str, int]]
"""Replicas by pipeline and configuration key."""


def merge(proposal: Proposal, keys: Sequence[tuple[str, str]], counts: Ints) -> Ints:
    """`counts` [K] of the options `keys` [K] (pipeline, configuration), with the proposal's in their place.

    A pipeline that is new or has other configurations by now keeps its own.
    """
    merged = counts.copy()
    known: dict[str, set[str]] = {}
    for pipeline, key in keys:
        known.setdefault(pipeline, set()).add(key)
    for place, (pipeline, key) in enumerate(keys):
        told = proposal.get(pipeline)
        if told is not None and set(told) == known[pipeline]:
            merged[place] = told[key]
    return merged


def propose(keys: Sequence[tuple[str, str]], counts: Ints, better: Ints) -> dict[str, dict[str, int]]:
    """The proposal by which `counts` [K] of the options `keys` [K] become `better` [K]; none where they are that.

    Why of all pipelines: who gets more gets it from others, and in a like problem those may be chosen otherwise.
    """
    proposal: dict[str, dict[str, int]] = {}
    if (counts != better).any():
        for (pipeline, key), count in zip(keys, better.tolist(), strict=True):
            proposal.setdefault(pipeline, {})[key] = count
    return proposal


def take_better(problem: Problem, solution: Solution, counts: Ints) -> Solution:
    """`counts` [K] in place of the solution's where they fit, keep every floor that it keeps, and are worth more to the
    first class to which they are not worth the same; else `solution`.
    """
    used = np.bincount(problem.pool, problem.units * counts, problem.pools)
    total = np.bincount(problem.pipeline, counts, problem.pipelines)
    kept = np.minimum(problem.floor, np.bincount(problem.pipeline, solution.counts, problem.pipelines))
    if (used > problem.capacity + SLACK).any() or (total > problem.cap).any() or (total < kept).any():
        return solution
    if worth_by_class(problem, counts) <= worth_by_class(problem, solution.counts):
        return solution
    value = worth_of(problem, counts)
    return replace(solution, counts=counts, value=value, bound=max(solution.bound, value))
