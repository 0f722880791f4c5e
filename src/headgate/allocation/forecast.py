"""How many requests will come: for each pipeline the forecaster that has lately been right, and how wrong it was.

Experts are moving averages of several lengths, each also with the rhythm (what came one and two periods ago beside
its level). Each forecasts windows ahead; when a window has passed, its error is scored, and the next forecast is that
of the best expert with the quantiles of its own recent errors around it.
Pure: time is counted in ticks that the caller gives. Sources: exponential smoothing with the error's own distribution
in place of a model's (R. Hyndman and G. Athanasopoulos, Forecasting: Principles and Practice, 3rd ed., 2021).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headgate.allocation.arrays import Floats

PROBABILITIES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
MINUTE_S = 60.0
WEIGHTS = (0.06, 0.12, 0.2, 0.24, 0.2, 0.12, 0.06)  # how much of the future each quantile stands for

_KEPT_TICKS = 2000
_FEWEST = 12  # errors before their quantiles are believed
_LOOK_S = 300.0  # between two looks for a rhythm
_LOOK_MINUTES = 360
_LEVEL_MINUTES = 5
_SHORTEST_MINUTES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastSettings:
    """How the past is weighed (seconds): lengths of the moving averages, memory of scores and of errors.

    `floor_rate` is requests per second that count as none: errors are of logarithms. A rhythm is looked for where
    deviations from the level correlate by at least `alike`; of them `quiet` (a logarithm) counts as none; it is
    believed while its squared error over `rhythm_score_s` is below `rhythm_margin` of that without it.
    """

    lengths_s: tuple[float, ...] = (10.0, 30.0, 90.0, 300.0)
    score_s: float = 1200.0
    errors_s: float = 2400.0
    unknown: float = 0.15
    floor_rate: float = 0.1
    alike: float = 0.4
    quiet: float = 0.1
    rhythm_score_s: float = 3600.0
    rhythm_margin: float = 0.9


DEFAULTS = ForecastSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of the future, in seconds from now."""

    begins_s: float
    ends_s: float


class Forecaster:
    """The forecasts of one pipeline's arrival rate. Fed with counts; asked for windows, always the same ones."""

    def __init__(self, settings: ForecastSettings = DEFAULTS) -> None:
        self._settings = settings
        self._lengths = np.array(settings.lengths_s)
        self._levels = np.zeros(len(self._lengths))
        self._at = 0.0
        self._past = Past()
        self._rhythm = Rhythm(settings)
        self._books: dict[Window, _Book] = {}

    def learn(self, arrivals: float, elapsed_s: float) -> None:
        """`arrivals` requests came in the last `elapsed_s` seconds."""
        self._past.add(arrivals, elapsed_s)
        if elapsed_s <= 0.0:
            return
        self._at += elapsed_s
        # Why not less than the share of all time so far: an average begins with what it has seen, not with nothing.
        follow = np.maximum(1.0 - np.exp(-elapsed_s / self._lengths), elapsed_s / self._at)
        self._levels += (arrivals / elapsed_s - self._levels) * follow
        self._rhythm.look(self._past, self._at)
        for window, book in self._books.items():
            book.score(window, self._past, self._at, elapsed_s)

    def forecast(self, window: Window) -> tuple[float, ...]:
        """Requests per second in `window`, at each of PROBABILITIES."""
        book = self._books.setdefault(window, _Book(self._settings))
        ratio = self._rhythm.ratio(self._past, self._at, window)
        if self._at > 0.0:  # before anything was learned there is no forecast that could be wrong
            book.open.append((self._at, np.append(self._levels, self._levels * ratio)))
        best = book.best()
        level = float(self._levels[best % len(self._levels)]) * (ratio if best >= len(self._levels) else 1.0)
        return tuple((level * np.exp(book.spread(best, self._at))).tolist())


class Past:
    """How many requests came until when: each tick of the last minutes, each minute of the last hours."""

    def __init__(self) -> None:
        self._times = [0.0]
        self._totals = [0.0]
        self.minutes = [0.0]
        """Requests until the end of each minute since the start."""

    def add(self, arrivals: float, elapsed_s: float) -> None:
        """`arrivals` in the next `elapsed_s` seconds."""
        if elapsed_s <= 0.0:
            self._totals[-1] += arrivals
            return
        before, total = self._times[-1], self._totals[-1]
        self._times.append(before + elapsed_s)
        self._totals.append(total + arrivals)
        while len(self.minutes) * MINUTE_S <= self._times[-1] + 1e-9:
            self.minutes.append(self.until(len(self.minutes) * MINUTE_S))
        if len(self._times) > 4 * _KEPT_TICKS:
            del self._times[:-_KEPT_TICKS], self._totals[:-_KEPT_TICKS]

    def until(self, moment: float) -> float:
        """Requests that came until `moment`: as if evenly within each tick, or minute where ticks are forgotten."""
        place = bisect_right(self._times, moment)
        if place >= len(self._times):
            return self._totals[-1]
        if place:
            begins, ends = self._times[place - 1], self._times[place]
            before, after = self._totals[place - 1], self._totals[place]
            return before + (after - before) * (moment - begins) / (ends - begins)
        minute = min(int(moment / MINUTE_S), len(self.minutes) - 2)
        before, after = self.minutes[minute], self.minutes[minute + 1]
        return before + (after - before) * (moment / MINUTE_S - minute)

    def rate(self, begins: float, ends: float) -> float:
        """Requests per second between two moments."""
        return (self.until(ends) - self.until(begins)) / (ends - begins)


class Rhythm:
    """What comes back after the same number of minutes: rises and falls beside the level, by how much."""

    def __init__(self, settings: ForecastSettings) -> None:
        self._settings = settings
        self._looked = 0.0
        self.period_s = 0.0

    def look(self, past: Past, at: float) -> None:
        """Look for a period anew, now and then: the lag at which deviations from the level are most alike."""
        if at - self._looked < _LOOK_S:
            return
        self._looked = at
        rates = np.log(np.diff(np.array(past.minutes[-_LOOK_MINUTES:])) + 1.0)
        if len(rates) < 3 * _SHORTEST_MINUTES + _LEVEL_MINUTES:
            return
        level = np.convolve(rates, np.ones(_LEVEL_MINUTES) / _LEVEL_MINUTES, mode="valid")[:-1]
        away = rates[_LEVEL_MINUTES:] - level
        away = away - away.mean()
        lags = range(_SHORTEST_MINUTES, int(len(away) / 1.5))
        alike = [float(away[lag:] @ away[:-lag] / max(1e-9, _norm(away[lag:]) * _norm(away[:-lag]))) for lag in lags]
        best = int(np.argmax(alike))
        self.period_s = lags[best] * MINUTE_S if alike[best] >= self._settings.alike else 0.0

    def ratio(self, past: Past, at: float, window: Window) -> float:
        """Arrivals in `window` beside the level now, as one and two periods ago; 1 where they tell nothing."""
        logs: list[float] = []
        for back in (self.period_s, 2 * self.period_s):
            then = at - back
            if not self.period_s or then < _LEVEL_MINUTES * MINUTE_S:
                break
            ends = min(window.ends_s, back)
            if ends <= window.begins_s:
                break
            came = past.rate(then + window.begins_s, then + ends)
            level = past.rate(then - _LEVEL_MINUTES * MINUTE_S, then)
            noise = 1.5 / math.sqrt(came * (ends - window.begins_s) + 1.0)
            away = math.log((came + self._settings.floor_rate) / (level + self._settings.floor_rate))
            logs.append(math.copysign(max(0.0, abs(away) - self._settings.quiet - noise), away))
        return math.exp(sum(logs) / len(logs)) if logs else 1.0


class _Book:
    """What was forecast for one window, and how wrong each expert was: moving averages, then the same with rhythm."""

    def __init__(self, settings: ForecastSettings) -> None:
        self._settings = settings
        self.open: deque[tuple[float, Floats]] = deque()
        self._errors: deque[tuple[float, Floats]] = deque()
        self._absolute: Floats | None = None
        self._squared: Floats | None = None
        self._spread: dict[int, tuple[float, Floats]] = {}

    def score(self, window: Window, past: Past, at: float, elapsed_s: float) -> None:
        """Compare forecasts whose window has passed with what came."""
        settings = self._settings
        while self.open and self.open[0][0] + window.ends_s <= at + 1e-9:
            made, levels = self.open.popleft()
            rate = past.rate(made + window.begins_s, made + window.ends_s)
            error = np.log((rate + settings.floor_rate) / (levels + settings.floor_rate))
            self._errors.append((at, error))
            self._absolute = _follow(self._absolute, np.abs(error), elapsed_s / settings.score_s)
            self._squared = _follow(self._squared, error**2, elapsed_s / settings.rhythm_score_s)
        while self._errors and self._errors[0][0] < at - settings.errors_s:
            self._errors.popleft()

    def best(self) -> int:
        """The expert to believe: the average that errs least, with rhythm while that errs clearly less by squares.

        Why squares: a rhythm that foresees a rise is right when it matters, and a little noisy in between.
        """
        if self._absolute is None or self._squared is None:
            return 1
        count = len(self._absolute) // 2
        plain = int(np.argmin(self._absolute[:count]))
        better = self._squared[count + plain] < self._settings.rhythm_margin * self._squared[plain]
        return count + plain if better else plain

    def spread(self, best: int, at: float) -> Floats:
        """The quantiles of an expert's recent errors."""
        if len(self._errors) < _FEWEST:
            return self._settings.unknown * np.array([-2.0, -1.3, -0.7, 0.0, 0.7, 1.3, 2.0])
        known = self._spread.get(best)
        if known is not None and at - known[0] < (self._errors[-1][0] - self._errors[0][0]) / 50.0:
            return known[1]  # a fiftieth more errors changes little, and sorting them is most of the work
        spread = np.quantile(np.array([error[best] for _, error in self._errors]), PROBABILITIES)
        self._spread[best] = (at, spread)
        return spread


def _follow(before: Floats | None, new: Floats, part: float) -> Floats:
    return new if before is None else before + (new - before) * (1.0 - math.exp(-part))


def _norm(values: Floats) -> float:
    return math.sqrt(float(values @ values))


class Forecasts:
    """A forecaster for each pipeline."""

    def __init__(self, settings: ForecastSettings = DEFAULTS) -> None:
        self._settings = settings
        self._forecasters: dict[str, Forecaster] = {}

    def learn(self, arrivals: Mapping[str, float], elapsed_s: float) -> None:
        """What came to each pipeline in the last `elapsed_s` seconds; pipelines not named are forgotten."""
        self._forecasters = {
            name: self._forecasters.get(name) or Forecaster(self._settings) for name in sorted(arrivals)
        }
        for name, forecaster in self._forecasters.items():
            forecaster.learn(arrivals[name], elapsed_s)

    def forecast(self, name: str, windows: Sequence[Window]) -> tuple[tuple[float, ...], ...]:
        """Requests per second of a pipeline at each of PROBABILITIES, in each window."""
        return tuple(self._forecasters[name].forecast(window) for window in windows)
