"""Linear rules for many pipelines at once, learned as answers come in: each one's own past, and what all have seen.

Least squares, old answers forgotten. A pipeline's prior is what all pipelines have seen together, and theirs is that
nothing changes. Arrays have the pipelines in their last axis. Source: empirical Bayes (C. Morris, Parametric Empirical
Bayes Inference, 1983) on recursive least squares with forgetting (L. Ljung, System Identification, 1999).
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np

from headgate.allocation.arrays import Floats, Ints
from headgate.allocation.past import carry


class Regression:
    """A rule for each pipeline from features [F, I] to an answer [I]; a rule that has learned nothing says 0."""

    def __init__(self, features: int, pipelines: int, *, others: float, doubt: float) -> None:
        """What all have seen weighs as `others` windows do, and as if each coefficient had been nothing in `doubt`."""
        self._others, self._doubt = others, doubt
        self._products: Floats = np.zeros((features, features, pipelines))
        self._answers: Floats = np.zeros((features, pipelines))
        self._seen: Floats = np.zeros(pipelines)
        self._rule: Floats = np.zeros((features, pipelines))

    def carry(self, old: Ints) -> None:
        """Go on with other pipelines."""
        self._products, self._answers = carry(self._products, old), carry(self._answers, old)
        self._seen, self._rule = carry(self._seen, old), carry(self._rule, old)

    def answer(self, features: Floats) -> Floats:
        """What the rules say [I]."""
        return (self._rule * features).sum(axis=0)

    def learn(self, features: Floats, answers: Floats, part: float) -> None:
        """`answers` [I] were right where the features were these (NaN: not there); `part` of the memory has passed."""
        forget = math.exp(-part)
        there = ~np.isnan(answers)
        features, answers = np.where(there, features, 0.0), np.where(there, answers, 0.0)
        self._products *= forget
        self._answers *= forget
        self._products += features[:, None, :] * features[None, :, :]
        self._answers += features * answers
        self._seen = self._seen * forget + there

    def solve(self, rows: Ints, ticks: float) -> None:
        """Bring the rules of the pipelines `rows` up to date; windows overlap, so that one's news comes in `ticks`."""
        prior = self._others * ticks / max(float(self._seen.sum()), 1.0)
        matrix = self._products[:, :, rows].transpose(2, 0, 1) + prior * self._products.sum(axis=2)
        right = self._answers[:, rows].T + prior * self._answers.sum(axis=1)
        matrix = matrix + (prior * self._doubt * ticks + 1e-6) * np.eye(matrix.shape[1])
        rules = cast("Floats", np.linalg.solve(matrix, right[:, :, None]))
        self._rule[:, rows] = rules[:, :, 0].T
