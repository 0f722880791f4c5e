"""Spreads: wide where errors were, wider for whoever moves or is new, never much beyond what was seen."""

from __future__ import annotations

import numpy as np
import pytest

from headgate.allocation import spread
from headgate.allocation.spread_table import BOUNDS, LINES, SHAPE

ERRORS = np.array([-2.0, -1.3, -0.7, 0.0, 0.7, 1.3, 2.0])
LENGTHS = 5


def told(
    moved: tuple[float, ...] = (0.0,) * LENGTHS,
    *,
    erred: float = 0.2,
    passed: float = 50.0,
    rate: float = 20.0,
    ends_s: float = 80.0,
) -> np.ndarray:
    """Errors of one pipeline: its averages stand beside `rate` by `moved`, its errors deviated by `erred`."""
    mixed = np.log([rate])
    logs = mixed + np.array(moved)[:, None]
    minutes = np.repeat(mixed[None], 15, axis=0)
    errors = erred * ERRORS[:, None]
    seen = spread.look(logs, minutes, mixed, errors, np.array([0.3]), np.array([passed]))
    return spread.tell(spread.place(seen, mixed, 35.0, ends_s), errors)[:, 0]


def width(errors: np.ndarray) -> float:
    return float(errors[-1] - errors[0])


def test_a_table_has_a_number_for_everything_that_is_seen() -> None:
    mixed = np.zeros((1,))
    seen = spread.look(
        np.zeros((LENGTHS, 1)), np.zeros((15, 1)), mixed, np.zeros((7, 1)), np.zeros((1,)), np.zeros((1,))
    )
    features = len(spread.place(seen, mixed, 35.0, 80.0))
    assert LINES.shape == (3, features) and BOUNDS.shape == (2, features)
    assert (BOUNDS[0] <= BOUNDS[1]).all() and list(SHAPE) == sorted(SHAPE) and len(SHAPE) == len(ERRORS)


def test_errors_rise_and_have_the_forecast_near_their_middle() -> None:
    errors = told()
    assert list(errors) == sorted(errors) and abs(errors[3]) < 0.2 * errors[5]


def test_who_erred_more_is_thought_to_err_more() -> None:
    assert width(told(erred=0.4)) > 1.2 * width(told(erred=0.2)) > 1.2 * width(told(erred=0.1))


def test_who_moves_now_is_less_certain_than_who_is_calm() -> None:
    assert width(told((0.2, 0.0, -0.3, -0.4, -0.4))) > 1.2 * width(told())


def test_a_window_further_away_and_one_with_fewer_requests_are_less_certain_above() -> None:
    assert told(ends_s=160.0)[-1] != told(ends_s=80.0)[-1]
    assert told(rate=2.0)[-1] > told(rate=200.0)[-1]


def test_nobody_is_thought_to_err_much_more_than_it_did_and_who_never_errs_not_at_all() -> None:
    wild = (0.5, 0.0, -0.5, -1.0, -1.5)
    errors = told(wild, erred=0.02)
    assert errors[5] - errors[3] <= 0.02 * 1.3 * 4.0 + 1e-9 and abs(errors[3]) <= 0.02 * 1.3 + 1e-9
    assert told(wild, erred=0.0) == pytest.approx(np.zeros(7))


def test_beyond_what_was_seen_when_it_was_learned_nothing_grows() -> None:
    assert told((9.0, 5.0, 0.0, -3.0, -6.0), erred=5.0) == pytest.approx(
        told((90.0, 50.0, 0.0, -30.0, -60.0), erred=5.0)
    )


def test_pipelines_do_not_look_at_each_other() -> None:
    mixed = np.log([5.0, 50.0])
    logs, minutes = np.stack([mixed + 0.1, mixed, mixed, mixed, mixed]), np.full((15, 2), np.nan)
    errors, head, passed = ERRORS[:, None] * np.array([0.1, 0.3]), np.array([np.inf, 0.1]), np.array([0.0, 9.0])
    seen = spread.look(logs, minutes, mixed, errors, head, passed)
    both = spread.tell(spread.place(seen, mixed, 0.0, 35.0), errors)
    alone = spread.look(logs[:, 1:], minutes[:, 1:], mixed[1:], errors[:, 1:], head[1:], passed[1:])
    assert both[:, 1:] == pytest.approx(spread.tell(spread.place(alone, mixed[1:], 0.0, 35.0), errors[:, 1:]))
