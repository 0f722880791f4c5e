"""How far from its forecast a load may be, by what is seen now: quantiles of the error of a logarithm.

Three lines through the same features say the error's middle and, as logarithms, its width above and below. What they
multiply by was learned on ServeGen's days 1 to 5 (`python -m benchmarks.lanes.learn_spread`), on none of the days that
figures come from, and is the same for all pipelines and windows. Knows no pipeline and learns nothing by itself.
Source: quantile regression (R. Koenker and G. Bassett, 1978) of a distribution in two pieces (the split normal one).
"""

from __future__ import annotations

from typing import cast

import numpy as np

from headgate.allocation.arrays import Floats
from headgate.allocation.spread_table import BOUNDS, LINES, SHAPE

_LEAST = 0.03  # of a difference or a width whose logarithm is taken
_DRIFT = 1.5  # at most, from what was seen
_HEAD = 1.0  # of a logarithm below the highest of two hours, at most
_AT_S = 30.0
_WIDEST = 4.0  # of its own recent errors
_LOW, _MIDDLE, _HIGH = 1, 3, 5  # of forecast.PROBABILITIES: 10, 50 and 90 %
_UPPER = SHAPE[:, None] > 0.0


def look(logs: Floats, minutes: Floats, mixed: Floats, errors: Floats, head: Floats, passed: Floats) -> Floats:
    """What is seen of each pipeline [F - 2, I]: all but what a window alone says, which `place` adds.

    Logarithms of rates: the averages `logs` [E, I] by length, the last `minutes` [L, I] (NaN: not there), the forecast
    `mixed` [I] and how much it is below the highest of two hours, `head` [I]. `errors` [Q, I] are quantiles of the
    pipeline's own recent errors, of which `passed` [I] windows tell.
    """
    moved = logs[:-1] - logs[1:]
    moved[-1] = np.clip(moved[-1], -_DRIFT, _DRIFT)
    known = np.where(np.isnan(minutes), mixed, minutes)
    return np.vstack(
        [
            np.ones_like(mixed)[None],
            _log(errors[_HIGH] - errors[_MIDDLE])[None],
            _log(errors[_MIDDLE] - errors[_LOW])[None],
            errors[_MIDDLE][None],
            _log(np.abs(moved[:2]).sum(axis=0))[None],
            np.maximum(moved[:4], 0.0),
            np.maximum(-moved[:4], 0.0),
            np.clip(mixed - known.min(axis=0), 0.0, _DRIFT)[None],
            np.clip(known.max(axis=0) - mixed, 0.0, _DRIFT)[None],
            np.clip(head, 0.0, _HEAD)[None],
            (1.0 / (1.0 + passed))[None],
        ]
    )


def place(seen: Floats, mixed: Floats, begins_s: float, ends_s: float) -> Floats:
    """What is `seen`, and what the window says: how many requests are counted in it, and how far away it ends."""
    counted = 0.5 * np.log(np.exp(mixed) * (ends_s - begins_s) + 1.0)
    return np.vstack([seen, counted[None], np.full_like(counted, np.log(ends_s / _AT_S))[None]])


def tell(features: Floats, errors: Floats) -> Floats:
    """Errors [Q, I] at forecast.PROBABILITIES, rising; `errors` as in `look`."""
    lines: Floats = LINES @ np.clip(features, BOUNDS[0][:, None], BOUNDS[1][:, None])
    middle, above, below = lines[0], lines[1], lines[2]
    # Why: whose swings are foreseen well may move all the time, and lines say nothing of who never errs.
    over, under = errors[_HIGH] - errors[_MIDDLE], errors[_MIDDLE] - errors[_LOW]
    above = np.minimum(np.exp(above), _WIDEST * over / SHAPE[_HIGH])
    below = np.minimum(np.exp(below), _WIDEST * under / -SHAPE[_LOW])
    width = cast("Floats", np.where(_UPPER, above, below))
    return np.minimum(np.maximum(middle, -under), over) + width * SHAPE[:, None]


def _log(wide: Floats) -> Floats:
    return np.log(np.maximum(wide, 0.0) + _LEAST)
