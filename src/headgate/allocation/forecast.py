"""How many requests will come: for each pipeline the forecaster that has lately been right, and how wrong it was.

Experts are moving averages of several lengths, each also with the rhythm (what came one and two periods ago beside
its level), and a regression on all of them, learned as windows pass, whose prior is what the other pipelines teach.
When a window has passed, every expert's error is scored; the next forecast leans to those that err least, with the
quantiles of its own recent errors around it. All pipelines are forecast at once: arrays have them in the last axis.
Pure: time is counted in ticks that the caller gives. Sources: exponential smoothing with the error's own distribution
in place of a model's (R. Hyndman and G. Athanasopoulos, Forecasting: Principles and Practice, 3rd ed., 2021); the
prior from the others is empirical Bayes (C. Morris, Parametric Empirical Bayes Inference, 1983).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from headgate.allocation.arrays import Floats, Ints
from headgate.allocation.past import Past, Rhythm, carry

PROBABILITIES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
WEIGHTS = (0.06, 0.12, 0.2, 0.24, 0.2, 0.12, 0.06)  # how much of the future each quantile stands for

_FEWEST = 12  # errors before their quantiles are believed
_KEPT = 480  # errors, spread over ForecastSettings.errors_s
_TURNS = 10  # ticks in which all regressions and quantiles are brought up to date once
_BASE = 1  # the average that the regression corrects
_UNKNOWN = np.array([-2.0, -1.3, -0.7, 0.0, 0.7, 1.3, 2.0])


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastSettings:
    """How the past is weighed (seconds): lengths of the moving averages, memory of scores and of errors.

    `floor_rate` is requests per second that count as none: errors are of logarithms. A rhythm is looked for where
    deviations from the level correlate by at least `alike`; of them `quiet` (a logarithm) counts as none; it is
    believed while its squared error over `rhythm_score_s` is below `rhythm_margin` of that without it. The regression
    remembers `learn_s`; its prior weighs as much as `others` windows; it is believed more than the best average by
    the ratio of their squared errors to the power of `lean`.
    """

    lengths_s: tuple[float, ...] = (10.0, 30.0, 90.0, 300.0, 3600.0)
    score_s: float = 1200.0
    errors_s: float = 2400.0
    unknown: float = 0.15
    floor_rate: float = 0.1
    alike: float = 0.4
    quiet: float = 0.1
    rhythm_score_s: float = 3600.0
    rhythm_margin: float = 0.9
    learn_s: float = 7200.0
    others: float = 300.0
    lean: float = 3.0


DEFAULTS = ForecastSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of the future, in seconds from now."""

    begins_s: float
    ends_s: float


class Forecasts:
    """The forecasts of all pipelines' arrival rates. Fed with counts; asked for windows, always the same few."""

    def __init__(self, settings: ForecastSettings = DEFAULTS) -> None:
        self._settings = settings
        self._lengths = np.array(settings.lengths_s)[:, None]
        self._levels: Floats = np.zeros((len(settings.lengths_s), 0))
        self._rows: dict[str, int] = {}
        self._past = Past()
        self._rhythm = Rhythm(alike=settings.alike, quiet=settings.quiet, floor_rate=settings.floor_rate)
        self._books: dict[Window, _Book] = {}
        self._told: dict[Window, list[tuple[float, ...]]] = {}

    def learn(self, arrivals: Mapping[str, float], elapsed_s: float) -> None:
        """What came to each pipeline in the last `elapsed_s` seconds; pipelines not named are forgotten."""
        if arrivals.keys() != self._rows.keys():
            self._carry(sorted(arrivals))
        came = np.array([arrivals[name] for name in self._rows], float)
        past = self._past
        past.add(came, elapsed_s)
        if elapsed_s <= 0.0:
            return
        # Why not less than the share of all time so far: an average begins with what it has seen, not with nothing.
        follow = np.maximum(1.0 - np.exp(-elapsed_s / self._lengths), elapsed_s / (past.now - past.born))
        self._levels = self._levels + (came / elapsed_s - self._levels) * np.minimum(follow, 1.0)
        self._rhythm.look(past)
        self._told.clear()
        for book in self._books.values():
            book.score(past, elapsed_s)

    def forecast(self, name: str, windows: Sequence[Window]) -> tuple[tuple[float, ...], ...]:
        """Requests per second of a pipeline at each of PROBABILITIES, in each window. Raises KeyError: not learned."""
        row = self._rows[name]
        return tuple(self._tell(window)[row] for window in windows)

    def _tell(self, window: Window) -> list[tuple[float, ...]]:
        told = self._told.get(window)
        if told is None:
            book = self._books.get(window)
            if book is None:
                book = self._books[window] = _Book(window, self._settings, len(self._rows))
            logs = np.log(self._levels + self._settings.floor_rate)
            ratio = self._rhythm.log_ratio(self._past, window.begins_s, window.ends_s)
            rates = book.forecast(self._past, logs, ratio)
            told = self._told[window] = [tuple(row) for row in rates.T.tolist()]
        return told

    def _carry(self, names: list[str]) -> None:
        old = np.array([self._rows.get(name, -1) for name in names], np.int64)
        self._rows = {name: row for row, name in enumerate(names)}
        self._levels = carry(self._levels, old)
        self._past.carry(old)
        self._rhythm.carry(old, self._past.now)
        self._told.clear()
        for book in self._books.values():
            book.carry(old)


@dataclass(frozen=True, slots=True)
class _Said:
    """What was forecast at `made`: logarithms by expert `experts` [X, I], the one told `mixed` [I], regression's
    `features` [F, I]; NaN for a pipeline that came later."""

    made: float
    experts: Floats
    mixed: Floats
    features: Floats


class _Book:
    """What was forecast for one window, and how wrong each expert was: averages, the same with rhythm, regression."""

    def __init__(self, window: Window, settings: ForecastSettings, pipelines: int) -> None:
        self._window = window
        self._settings = settings
        averages = len(settings.lengths_s)
        self._base = min(_BASE, averages - 1)
        self._open: deque[_Said] = deque()
        self._absolute: Floats = np.full((averages, pipelines), np.nan)
        self._squared: Floats = np.full((2 * averages + 1, pipelines), np.nan)
        self._errors: Floats = np.full((_KEPT, pipelines), np.nan)
        self._kept = 0
        self._kept_at = -math.inf
        self._spread = np.repeat(settings.unknown * _UNKNOWN[:, None], pipelines, axis=1)
        self._regression = _Regression(averages + 1, pipelines)
        self._turn = 0

    def carry(self, old: Ints) -> None:
        """Go on with other pipelines."""
        gone = math.nan
        self._open = deque(
            _Said(said.made, *(carry(one, old, gone) for one in (said.experts, said.mixed, said.features)))
            for said in self._open
        )
        self._absolute, self._squared = carry(self._absolute, old, gone), carry(self._squared, old, gone)
        self._errors = carry(self._errors, old, gone)
        self._spread = np.where(old >= 0, carry(self._spread, old), self._settings.unknown * _UNKNOWN[:, None])
        self._regression.carry(old)

    def forecast(self, past: Past, logs: Floats, ratio: Floats) -> Floats:
        """Requests per second [Q, I], from logarithms of levels [E, I] and the rhythm's ratio [I]."""
        others = np.delete(logs, self._base, axis=0) - logs[self._base]
        features = np.vstack([np.ones((1, len(ratio))), others, ratio[None, :]])
        regressed = logs[self._base] + self._regression.answer(features)
        experts = np.vstack([logs, logs + ratio, regressed[None, :]])
        mixed = self._mix(experts)
        if past.now > 0.0:  # before anything was learned there is no forecast that could be wrong
            self._open.append(_Said(past.now, experts, mixed, features))
        return np.maximum(np.exp(mixed + self._spread) - self._settings.floor_rate, 0.0)

    def score(self, past: Past, elapsed_s: float) -> None:
        """Compare forecasts whose window has passed with what came, and learn from them."""
        settings, window = self._settings, self._window
        while self._open and self._open[0].made + window.ends_s <= past.now + 1e-9:
            said = self._open.popleft()
            rate = past.rates(said.made + window.begins_s, said.made + window.ends_s)
            log = np.log(np.maximum(rate, 0.0) + settings.floor_rate)
            errors = log - said.experts
            averages = len(self._absolute)
            self._absolute = _follow(self._absolute, np.abs(errors[:averages]), elapsed_s / settings.score_s)
            self._squared = _follow(self._squared, errors**2, elapsed_s / settings.rhythm_score_s)
            self._regression.learn(said.features, log - said.experts[self._base], elapsed_s / settings.learn_s)
            self._keep(log - said.mixed, past.now)
            turns = _TURNS if self._turn >= 4 * _TURNS else 1  # the first ones say the most
            rows = np.arange(self._turn % turns, len(rate), turns, dtype=np.int64)
            self._turn += 1
            if len(rows):
                # Why times ticks: windows overlap, so that a window's worth of news comes in so many scores.
                self._regression.solve(rows, settings.others * max(1.0, window.ends_s / elapsed_s))
                self._measure(rows)

    def _mix(self, experts: Floats) -> Floats:
        """The forecast [I]: the best average, with rhythm while that errs clearly less, and the regression, by squares.

        Why squares: who foresees a rise is right when it matters, and a little noisy in between.
        """
        averages, column = len(self._absolute), np.arange(experts.shape[1], dtype=np.int64)
        known = ~np.isnan(self._absolute[0])
        plain = np.argmin(np.where(known, self._absolute, 0.0), axis=0)
        squared = self._squared
        rhythmic = squared[averages + plain, column] < self._settings.rhythm_margin * squared[plain, column]
        best = np.where(known, plain + averages * rhythmic, self._base)
        with np.errstate(over="ignore", invalid="ignore"):
            part = 1.0 / (1.0 + ((squared[-1] + 1e-9) / (squared[best, column] + 1e-9)) ** self._settings.lean)
        part = np.where(known, part, 0.0)
        return part * experts[-1] + (1.0 - part) * experts[best, column]

    def _keep(self, errors: Floats, now: float) -> None:
        """Keep errors [I], as many as fit what is remembered; all of the first ones."""
        apart_s = self._settings.errors_s / _KEPT if self._kept >= _FEWEST else 0.0
        if now - self._kept_at < apart_s - 1e-9:
            return
        self._errors[self._kept % _KEPT] = errors
        self._kept += 1
        self._kept_at = now

    def _measure(self, rows: Ints) -> None:
        """The quantiles of the told forecasts' recent errors, for the pipelines `rows`."""
        errors = np.sort(self._errors[: min(self._kept, _KEPT), rows], axis=0)  # NaN last
        count = (~np.isnan(errors)).sum(axis=0)
        place = np.array(PROBABILITIES)[:, None] * np.maximum(count - 1, 0)
        below = place.astype(np.int64)
        column = np.arange(len(rows), dtype=np.int64)
        low, high = errors[below, column], errors[np.minimum(below + 1, np.maximum(count - 1, 0)), column]
        self._spread[:, rows] = np.where(count >= _FEWEST, low + (high - low) * (place - below), self._spread[:, rows])


class _Regression:
    """A linear rule for each pipeline from features [F, I] to how far a window's logarithm is from an average's.

    Least squares, old windows forgotten; what all pipelines have seen together is each one's prior.
    """

    def __init__(self, features: int, pipelines: int) -> None:
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
        """`answers` [I] were right where the features were these; `part` of the memory has passed."""
        forget = math.exp(-part)
        there = ~np.isnan(answers)
        features, answers = np.where(there, features, 0.0), np.where(there, answers, 0.0)
        self._products *= forget
        self._answers *= forget
        self._products += features[:, None, :] * features[None, :, :]
        self._answers += features * answers
        self._seen = self._seen * forget + there

    def solve(self, rows: Ints, prior: float) -> None:
        """The best rules of the pipelines `rows`; the prior weighs as `prior` answers do."""
        seen = max(float(self._seen.sum()), 1.0)
        matrix = self._products[:, :, rows].transpose(2, 0, 1) + prior / seen * self._products.sum(axis=2)
        right = self._answers[:, rows].T + prior / seen * self._answers.sum(axis=1)
        matrix = matrix + 1e-3 * prior * np.eye(matrix.shape[1])
        rules = cast("Floats", np.linalg.solve(matrix, right[:, :, None]))
        self._rule[:, rows] = rules[:, :, 0].T


def _follow(before: Floats, new: Floats, part: float) -> Floats:
    """A moving average; NaN where there was nothing to begin with."""
    moved = before + (new - before) * (1.0 - math.exp(-part))
    return np.where(np.isnan(before), new, np.where(np.isnan(new), before, moved))
