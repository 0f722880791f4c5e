"""A decision's problem solved once more with time to spare: how near the decision was to the best, and what is better.

For the background: it takes seconds, and needs highspy (the extra `sim`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from headgate.allocation.exact import solve_relaxed, tighten
from headgate.allocation.policy import find_choice
from headgate.allocation.proposals import Proposal, propose
from headgate.allocation.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """What the exact methods say of a decision.

    `gap` is how far it may be from the best possible, as a part of that; `prices` (rank, pool) are those of the linear
    relaxation; `proposal` is what would have been better, empty where nothing is known to be.
    """

    gap: float
    prices: tuple[tuple[float, ...], ...] = ()
    proposal: Proposal = field(default_factory=dict[str, dict[str, int]])


def refine(state: State, seconds: float) -> Refinement | None:
    """What `seconds` of looking, for each class, find of the decision that `state` leads to.

    None where there was nothing to choose, and under a limit of power, which the exact methods do not know. Raises
    ConfigError where highspy is missing.
    """
    choice = None if state.capacity.watts is not None else find_choice(state)
    if choice is None:
        return None
    problem, solution = choice.problem, choice.solution
    relaxed = solve_relaxed(problem)
    better = tighten(problem, solution, seconds)
    bound = better.bound if len(np.unique(problem.rank)) > 1 else min(better.bound, max(relaxed.bound, better.value))
    return Refinement(
        gap=max(0.0, bound - solution.value) / max(abs(bound), 1e-9),
        prices=tuple(tuple(row) for row in relaxed.prices.tolist()),
        proposal=propose(list(choice.counts), solution.counts, better.counts),
    )
