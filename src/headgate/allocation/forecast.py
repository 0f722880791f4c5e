"""How many requests will come: for each pipeline the forecaster that has lately been right, and how wrong it was.

Experts are moving averages of several lengths. Each forecasts windows ahead; when a window has passed, its error is
scored, and the next forecast is that of the best expert with the quantiles of its own recent errors around it.
Pure: time is counted in ticks that the caller gives. Sources: exponential smoothing with the error's own distribution
in place of a model's (R. Hyndman and G. Athanasopoulos, Forecasting: Principles and Practice, 3rd ed., 2021).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

PROBABILITIES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
WEIGHTS = (0.06, 0.12, 0.2, 0.24, 0.2, 0.12, 0.06)  # how much of the future each quantile stands for


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastSettings:
    """How the past is weighed (seconds): lengths of the moving averages, memory of scores and of errors.

    `floor_rate` is requests per second that count as none: errors are of logarithms.
    """

    lengths_s: tuple[float, ...] = (10.0, 30.0, 90.0, 300.0)
    score_s: float = 1200.0
    errors_s: float = 2400.0
    unknown: float = 0.15
    floor_rate: float = 0.1


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
        self._total = 0.0
        self._ticks: deque[tuple[float, float]] = deque([(0.0, 0.0)])  # time, requests until then
        self._scores: dict[Window, Floats] = {}
        self._errors: dict[Window, deque[tuple[float, Floats]]] = {}
        self._open: dict[Window, deque[tuple[float, Floats]]] = {}
        self._sorted: dict[tuple[Window, int], tuple[float, Floats]] = {}

    def learn(self, arrivals: float, elapsed_s: float) -> None:
        """`arrivals` requests came in the last `elapsed_s` seconds."""
        if elapsed_s <= 0.0:
            self._total += arrivals
            return
        self._at += elapsed_s
        self._total += arrivals
        self._ticks.append((self._at, self._total))
        # Why not less than the share of all time so far: an average begins with what it has seen, not with nothing.
        follow = np.maximum(1.0 - np.exp(-elapsed_s / self._lengths), elapsed_s / self._at)
        self._levels += (arrivals / elapsed_s - self._levels) * follow
        for window in self._open:
            self._score(window)
        keep = self._at - max([window.ends_s for window in self._open], default=0.0) - 60.0
        while len(self._ticks) > 2 and self._ticks[1][0] < keep:
            self._ticks.popleft()

    def forecast(self, window: Window) -> tuple[float, ...]:
        """Requests per second in `window`, at each of PROBABILITIES."""
        self._open.setdefault(window, deque()).append((self._at, self._levels.copy()))
        scores = self._scores.get(window)
        best = 1 if scores is None else int(np.argmin(scores))
        return tuple((self._levels[best] * np.exp(self._spread(window, best))).tolist())

    def _score(self, window: Window) -> None:
        """Compare forecasts whose window has passed with what came."""
        settings, pending = self._settings, self._open[window]
        errors = self._errors.setdefault(window, deque())
        while pending and pending[0][0] + window.ends_s <= self._at + 1e-9:
            made, levels = pending.popleft()
            came = self._until(made + window.ends_s) - self._until(made + window.begins_s)
            rate = came / (window.ends_s - window.begins_s)
            error = np.log((rate + settings.floor_rate) / (levels + settings.floor_rate))
            errors.append((self._at, error))
            before = self._scores.get(window)
            follow = 1.0 - math.exp(-(self._at - self._ticks[-2][0]) / settings.score_s)
            self._scores[window] = np.abs(error) if before is None else before + (np.abs(error) - before) * follow
        while errors and errors[0][0] < self._at - settings.errors_s:
            errors.popleft()

    def _until(self, moment: float) -> float:
        """Requests that came until `moment`, as if evenly within each tick."""
        ticks = self._ticks
        for number in range(len(ticks) - 1, 0, -1):
            (begins, before), (ends, after) = ticks[number - 1], ticks[number]
            if begins <= moment:
                return before + (after - before) * min(1.0, (moment - begins) / (ends - begins))
        return ticks[0][1]

    def _spread(self, window: Window, best: int) -> Floats:
        """The quantiles of the best expert's recent errors."""
        errors = self._errors.get(window)
        if not errors or len(errors) < 12:
            return self._settings.unknown * np.array([-2.0, -1.3, -0.7, 0.0, 0.7, 1.3, 2.0])
        known = self._sorted.get((window, best))
        if known is not None and self._at - known[0] < (errors[-1][0] - errors[0][0]) / 50.0:
            return known[1]  # a fiftieth more errors changes little, and sorting them is most of the work
        spread = np.quantile(np.array([error[best] for _, error in errors]), PROBABILITIES)
        self._sorted[window, best] = (self._at, spread)
        return spread


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
