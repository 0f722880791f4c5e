"""How many requests will come: for each pipeline the forecaster that has lately been right, and how wrong it was.

Experts are moving averages of several lengths, each also with the rhythm (what came one and two periods ago beside
its level), and two regressions that are learned as windows pass: on all of those, and on each of the last minutes.
When a window has passed, every expert's error is scored; the next forecast leans to those that err least, with
quantiles around it that `spread` tells from its own recent errors and from how it moves. All pipelines are forecast at
once: arrays have them in the last axis.
Pure: time is counted in ticks that the caller gives. Sources: exponential smoothing with the error's own distribution
in place of a model's, and autoregression (R. Hyndman and G. Athanasopoulos, Forecasting: Principles and Practice,
3rd ed., 2021).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headgate.allocation import spread
from headgate.allocation.arrays import Floats, Ints
from headgate.allocation.past import MINUTE_S, Past, Rhythm, carry
from headgate.allocation.regression import Regression

PROBABILITIES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
WEIGHTS = (0.06, 0.12, 0.2, 0.24, 0.2, 0.12, 0.06)  # how much of the future each quantile stands for

_FEWEST = 12  # errors that are kept however close to each other
_KEPT = 480  # errors, spread over ForecastSettings.errors_s
_TURNS = 10  # ticks in which all regressions and quantiles are brought up to date once
_BASE = 1  # the average that the regression corrects
_SHAPE = np.array([-2.0, -1.3, -0.7, 0.0, 0.7, 1.3, 2.0])  # of errors at PROBABILITIES, in standard deviations
_WIDE_AT_S = 30.0  # the end of a window for which widths are given; further ones as a random walk's
_SEEN_MINUTES = 120  # what was the least and the most in these bounds what is said,
_BEYOND = 0.2  # a regression by so much of a logarithm more or less,
_ABOVE = 0.05  # and a quantile by so much more,
_NEW = 0.3  # but not for whoever is so much above all that was
_NEW_MINUTES = 3  # before these minutes,
_YOUNG_S = 540.0  # or is not known for longer than this


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastSettings:
    """How the past is weighed (seconds): lengths of the moving averages, memory of scores and of errors.

    `floor_rate` is requests per second that count as none: errors are of logarithms. A rhythm is looked for where
    deviations from the level correlate by at least `alike`; of them `quiet` (a logarithm) counts as none; it is
    believed while its squared error over `rhythm_score_s` is below `rhythm_margin` of that without it. Regressions
    remember `learn_s`; what all pipelines have seen weighs in them as `others` windows do, in that on each of the last
    `lags` minutes as `lag_others`, and what nobody has seen as `doubt` windows. They are believed more than the best
    average by the ratio of squared errors to the power of `lean`, and half of that when `earn` windows have passed.
    Before any window has passed, errors are thought to deviate by `unknown`; after `blur` windows that counts half.
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
    lags: int = 15
    lag_others: float = 10.0
    doubt: float = 0.5
    earn: float = 4.0
    blur: float = 3.0


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
        self._shown: _Shown | None = None

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
        self._shown = None
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
            ratio = self._rhythm.log_ratio(self._past, window.begins_s, window.ends_s)
            if self._shown is None:
                self._shown = self._show()
            rates = book.forecast(self._past, self._shown, ratio)
            told = self._told[window] = [tuple(row) for row in rates.T.tolist()]
        return told

    def _show(self) -> _Shown:
        """What is seen now, for all windows."""
        past, floor_rate = self._past, self._settings.floor_rate
        begins = past.now - MINUTE_S * np.arange(1, self._settings.lags + 1)
        rates = np.stack([past.rates(at, at + MINUTE_S) for at in begins.tolist()])
        rates[begins[:, None] < past.born] = np.nan
        return _Shown(
            logs=np.log(self._levels + floor_rate),
            minutes=np.log(np.maximum(rates, 0.0) + floor_rate),
            before=np.log(past.minutes(_SEEN_MINUTES) / MINUTE_S + floor_rate),
        )

    def _carry(self, names: list[str]) -> None:
        old = np.array([self._rows.get(name, -1) for name in names], np.int64)
        self._rows = {name: row for row, name in enumerate(names)}
        self._levels = carry(self._levels, old)
        self._past.carry(old)
        self._rhythm.carry(old, self._past.now)
        self._told.clear()
        self._shown = None
        for book in self._books.values():
            book.carry(old)


@dataclass(frozen=True, slots=True)
class _Shown:
    """Logarithms of rates: levels `logs` [E, I], the last `minutes` [L, I], the latest first, NaN where there was none
    yet, and all minutes `before` [M, I] that forecasts are bounded by.
    """

    logs: Floats
    minutes: Floats
    before: Floats


@dataclass(frozen=True, slots=True)
class _Said:
    """What was forecast at `made`: logarithms by expert `experts` [X, I], the one told `mixed` [I], the regressions'
    features `averages` and `minutes` [F, I]; NaN for a pipeline that came later."""

    made: float
    experts: Floats
    mixed: Floats
    averages: Floats
    minutes: Floats


class _Book:
    """What was forecast for one window, and how wrong each expert was: averages, the same with rhythm, regressions."""

    def __init__(self, window: Window, settings: ForecastSettings, pipelines: int) -> None:
        self._window = window
        self._settings = settings
        averages = len(settings.lengths_s)
        self._base = min(_BASE, averages - 1)
        self._open: deque[_Said] = deque()
        self._absolute: Floats = np.full((averages, pipelines), np.nan)
        self._squared: Floats = np.full((2 * averages + 2, pipelines), np.nan)
        self._errors: Floats = np.full((_KEPT, pipelines), np.nan)
        self._kept = 0
        self._kept_at = -math.inf
        further = math.sqrt(max(1.0, window.ends_s / _WIDE_AT_S))
        self._unknown = settings.unknown * further * _SHAPE[:, None]
        self._own = np.repeat(self._unknown, pipelines, axis=1)
        self._of_averages = Regression(averages + 1, pipelines, others=settings.others, doubt=settings.doubt)
        self._of_minutes = Regression(settings.lags + 1, pipelines, others=settings.lag_others, doubt=settings.doubt)
        self._passed: Floats = np.zeros(pipelines)
        self._turn = 0

    def carry(self, old: Ints) -> None:
        """Go on with other pipelines."""
        gone = math.nan
        self._open = deque(
            _Said(one.made, *(carry(told, old, gone) for told in (one.experts, one.mixed, one.averages, one.minutes)))
            for one in self._open
        )
        self._absolute, self._squared = carry(self._absolute, old, gone), carry(self._squared, old, gone)
        self._errors = carry(self._errors, old, gone)
        self._own = np.where(old >= 0, carry(self._own, old), self._unknown)
        self._of_averages.carry(old)
        self._of_minutes.carry(old)
        self._passed = carry(self._passed, old)

    def forecast(self, past: Past, shown: _Shown, ratio: Floats) -> Floats:
        """Requests per second [Q, I], from what is seen and the rhythm's ratio [I] in this window."""
        logs, before = shown.logs, shown.before
        base, one = logs[self._base], np.ones((1, len(ratio)))
        averages = np.vstack([one, np.delete(logs, self._base, axis=0) - base, ratio[None, :]])
        minutes = np.vstack([one, np.nan_to_num(shown.minutes - base)])
        regressed = np.stack([base + self._of_averages.answer(averages), base + self._of_minutes.answer(minutes)])
        seen = np.vstack([logs, before])
        # Why: a rule that was learned while all rose says that all will go on.
        regressed = np.clip(regressed, seen.min(axis=0) - _BEYOND, seen.max(axis=0) + _BEYOND)
        experts = np.vstack([logs, logs + ratio, regressed])
        mixed = self._mix(experts)
        if past.now > 0.0:  # before anything was learned there is no forecast that could be wrong
            self._open.append(_Said(past.now, experts, mixed, averages, minutes))
        highest = seen.max(axis=0)
        new = mixed > before[:-_NEW_MINUTES].max(axis=0, initial=-math.inf) + _NEW
        new |= past.now - past.born < _YOUNG_S
        head = np.where(new, math.inf, highest - mixed)
        # Why: who moves now is further from any forecast soon than who was as calm as this in the last half hour.
        looked = spread.look(logs, shown.minutes, mixed, self._own, head, self._passed)
        placed = spread.place(looked, mixed, self._window.begins_s, self._window.ends_s)
        errors = spread.tell(placed, self._own)
        # Why: errors are widest where loads jump up and down again, and that does not lift them above where they were.
        most = np.where(new, math.inf, highest + _ABOVE)
        return np.maximum(np.exp(np.minimum(mixed + errors, most)) - self._settings.floor_rate, 0.0)

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
            away, part = log - said.experts[self._base], elapsed_s / settings.learn_s
            self._of_averages.learn(said.averages, away, part)
            self._of_minutes.learn(said.minutes, away, part)
            self._keep(log - said.mixed, past.now)
            self._passed = np.where(np.isnan(said.mixed), 0.0, self._passed + elapsed_s / window.ends_s)
            turns = _TURNS if self._turn >= 4 * _TURNS else 1  # the first ones say the most
            rows = np.arange(self._turn % turns, len(rate), turns, dtype=np.int64)
            self._turn += 1
            if len(rows):
                ticks = max(1.0, window.ends_s / elapsed_s)
                self._of_averages.solve(rows, ticks)
                self._of_minutes.solve(rows, ticks)
                self._measure(rows)

    def _mix(self, experts: Floats) -> Floats:
        """The forecast [I]: the best average, with rhythm while that errs clearly less, and regressions, by squares.

        Why squares: who foresees a rise is right when it matters, and a little noisy in between.
        """
        averages, column = len(self._absolute), np.arange(experts.shape[1], dtype=np.int64)
        known = ~np.isnan(self._absolute[0])
        plain = np.argmin(np.where(known, self._absolute, 0.0), axis=0)
        squared = self._squared
        rhythmic = squared[averages + plain, column] < self._settings.rhythm_margin * squared[plain, column]
        best = np.where(known, plain + averages * rhythmic, self._base)
        told = np.vstack([experts[best, column], experts[-2:]])
        rivals = np.vstack([squared[best, column], squared[-2:]]) + 1e-9
        parts = (rivals.min(axis=0) / rivals) ** self._settings.lean
        # Why but for one window: until then no rule was learned that could have erred.
        earned = np.maximum(self._passed - 1.0, 0.0)
        parts[1:] *= earned / (earned + self._settings.earn)
        parts = np.where(known, parts, np.array([[1.0], [0.0], [0.0]]))
        return (parts * told).sum(axis=0) / parts.sum(axis=0)

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
        own = np.where(count > 0, low + (high - low) * (place - below), 0.0)
        passed = self._passed[rows]
        known = passed / (passed + self._settings.blur)
        self._own[:, rows] = known * own + (1.0 - known) * self._unknown


def _follow(before: Floats, new: Floats, part: float) -> Floats:
    """A moving average; NaN where there was nothing to begin with."""
    moved = before + (new - before) * (1.0 - math.exp(-part))
    return np.where(np.isnan(before), new, np.where(np.isnan(new), before, moved))
