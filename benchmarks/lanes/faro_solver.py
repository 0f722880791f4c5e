"""Faro's optimiser: relaxed utility of a division of replicas, COBYLA, rounding, trimming.

Source: github.com/beomyeol/faro, src/solver.py (its functions and its order of steps), EuroSys'25.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numba import njit
from scipy.optimize import minimize

from headgate.allocation.arrays import Floats

PROCESSING_S = 0.18  # what Faro takes a request to need; 0.154 s on average in truth
PERCENTILE = 99.0
MOST_RHO = 0.95
FIRST_STEP = 3.0  # COBYLA's rhobeg
_BETTER = 1e-4

Goal = Literal["sum", "fair", "fair_sum"]


@njit(cache=True)
def _latency_s(rate: float, replicas: float, work_s: float) -> float:
    """Approximate p99 latency of M/D/c with a real number of replicas: half the wait of M/M/c, above `MOST_RHO` that of
    the load it stands times the overload."""
    if replicas <= 0.0:
        return np.inf
    over = 1.0
    if rate * work_s / replicas > MOST_RHO:
        over = rate * work_s / replicas / MOST_RHO
        rate = MOST_RHO * replicas / work_s
    load = rate * work_s
    term, below = 1.0, 0.0
    for k in range(1, int(replicas) + 1):
        below += term
        term *= load / k
    full = term / (1.0 - load / replicas)
    waits = full / (below + full)
    if waits <= 0.0:
        waits = 1e-4
    wait = max(0.0, np.log(100.0 * waits / (100.0 - PERCENTILE)) / (replicas / work_s - rate))
    return (wait / 2.0 + work_s) * over


@njit(cache=True)
def utilities(replicas: Floats, before: Floats, rates: Floats, slow_steps: int, late_s: float) -> Floats:
    """Mean over the steps of min(1, SLO / latency), by job.

    `rates`: requests per second ([job, step]). A job that grows has its `before` replicas in the first `slow_steps`.
    """
    jobs, steps = rates.shape
    out = np.zeros(jobs)
    if np.any(replicas <= 0.0):
        return out
    for job in range(jobs):
        for step in range(steps):
            grows = replicas[job] > before[job] and step < slow_steps and slow_steps < steps
            latency = _latency_s(rates[job, step], before[job] if grows else replicas[job], PROCESSING_S)
            out[job] += min(1.0, late_s / latency) / steps
    return out


class Division:
    """One division of `capacity` replicas to be found."""

    def __init__(
        self, rates: Floats, before: Floats, capacity: int, slow_steps: int, late_s: float, goal: Goal
    ) -> None:
        """`before`: replicas that serve now; `slow_steps`: minutes until a new one serves (half with room left)."""
        self._rates = rates
        self._before = before.astype(float)
        self._capacity = capacity
        self._slow_steps = slow_steps // 2 if capacity - before.sum() > 0 else slow_steps
        self._late_s = late_s
        self._goal = goal

    def solve(self) -> Floats:
        """The replicas of each job, at least one, at most the capacity in all; what gains nothing is left out."""
        found = minimize(
            self.loss,
            self._before,
            method="COBYLA",
            constraints=[{"type": "ineq", "fun": lambda x: np.concatenate([[self._capacity - x.sum()], x - 1.0])}],
            options={"rhobeg": FIRST_STEP},
        )
        return self._trim(self._fit(np.maximum(np.ceil(np.nan_to_num(found.x, nan=1.0)), 1.0)))

    def loss(self, replicas: Floats) -> float:
        """What is minimised: minus the sum of utilities, their spread, or both (the spread times the jobs)."""
        each = utilities(np.asarray(replicas, float), self._before, self._rates, self._slow_steps, self._late_s)
        spread = float(each.max() - each.min())
        if self._goal == "fair":
            return spread
        if self._goal == "sum":
            return -float(each.sum())
        return -float(each.sum()) - (1.0 - spread) * len(each)

    def _fit(self, x: Floats) -> Floats:
        """Take away, one by one, the replica whose loss is least (then the one that changes least)."""
        while x.sum() > self._capacity:
            ranked = []
            for job in np.flatnonzero(x > 1.0):
                less = x.copy()
                less[job] -= 1.0
                ranked.append((round(self.loss(less), 4), abs(less[job] - self._before[job]), int(job)))
            x[min(ranked)[2]] -= 1.0
        return x

    def _trim(self, x: Floats) -> Floats:
        """Take away what gains nothing; give all that is left to one job if that is better; again."""
        loss, out = self.loss(x), x.copy()
        for job in range(len(out)):
            while out[job] > 1.0:
                out[job] -= 1.0
                if (now := self.loss(out)) - loss > _BETTER:
                    out[job] += 1.0
                    break
                loss = now
        return out if np.array_equal(out, x) else self._give(out)

    def _give(self, x: Floats) -> Floats:
        rest, loss = self._capacity - x.sum(), self.loss(x)
        for job in range(len(x)):
            more = x.copy()
            more[job] += rest
            if loss - self.loss(more) > _BETTER:
                return self._trim(more)
        return x
