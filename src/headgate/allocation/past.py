"""How many requests came until when, for all pipelines at once, and what of it comes back like a rhythm.

Arrays have the pipelines in their last axis. Time is counted in seconds that the caller gives. Forecasts nothing.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from headgate.allocation.arrays import Floats, Ints

MINUTE_S = 60.0
LEVEL_S = 300.0  # the level that a rhythm's rises and falls stand beside

_KEPT_S = 2400.0
_KEPT_MINUTES = 720
_LOOK_S = 300.0  # between two looks for a rhythm
_LOOK_MINUTES = 360
_LEVEL_MINUTES = int(LEVEL_S / MINUTE_S)
_SHORTEST_MINUTES = 5


def carry(values: Floats | Ints, old: Ints, fresh: float = 0.0) -> Floats:
    """`values` [..., I] for a new list of pipelines: `old` has each one's place before, -1 for one that is new."""
    if not values.shape[-1]:
        return np.full((*values.shape[:-1], len(old)), fresh)
    return np.where(old >= 0, values[..., np.maximum(old, 0)], fresh)


class Past:
    """Requests until each tick of the last minutes, and until each minute of the last hours."""

    def __init__(self) -> None:
        self.now = 0.0
        self.born: Floats = np.zeros(0)
        """When each pipeline [I] was first heard of."""
        self._times = [0.0]
        self._totals: list[Floats] = [np.zeros(0)]
        self._first_minute = 0
        self._minutes: list[Floats] = [np.zeros(0)]
        self._stacked: Floats | None = None

    def carry(self, old: Ints) -> None:
        """Go on with other pipelines: see `carry`."""
        self.born = carry(self.born, old, self.now)
        self._totals = list(carry(np.array(self._totals), old))
        self._minutes, self._stacked = list(carry(self._stack(), old)), None

    def add(self, arrivals: Floats, elapsed_s: float) -> None:
        """`arrivals` [I] in the next `elapsed_s` seconds; without any time they count to the last tick."""
        if elapsed_s <= 0.0:
            self._totals[-1] = self._totals[-1] + arrivals
            return
        self.now += elapsed_s
        self._times.append(self.now)
        self._totals.append(self._totals[-1] + arrivals)
        while (self._first_minute + len(self._minutes)) * MINUTE_S <= self.now + 1e-9:
            self._minutes.append(self._until((self._first_minute + len(self._minutes)) * MINUTE_S))
            self._stacked = None
        if self._times[0] < self.now - 2.0 * _KEPT_S:
            forgotten = bisect_right(self._times, self.now - _KEPT_S)
            del self._times[:forgotten], self._totals[:forgotten]
        if len(self._minutes) > 2 * _KEPT_MINUTES:
            self._first_minute += _KEPT_MINUTES
            del self._minutes[:_KEPT_MINUTES]
            self._stacked = None

    def rates(self, begins: float, ends: float) -> Floats:
        """Requests per second [I] between two moments of the last minutes."""
        return (self._until(ends) - self._until(begins)) / (ends - begins)

    def rates_then(self, begins: Floats, ends: Floats) -> Floats:
        """Requests per second [I] between two moments of each pipeline's own [I], as if evenly within each minute."""
        return (self._until_then(ends) - self._until_then(begins)) / (ends - begins)

    def minutes(self, most: int) -> Floats:
        """Requests of each of the last `most` whole minutes [M, I], or of as many as there are."""
        return np.diff(self._stack()[-most - 1 :], axis=0)

    def _stack(self) -> Floats:
        """Requests until each minute [M, I]."""
        if self._stacked is None:
            self._stacked = np.array(self._minutes)
        return self._stacked

    def _until(self, moment: float) -> Floats:
        place = bisect_right(self._times, moment)
        if place >= len(self._times):
            return self._totals[-1]
        if not place:
            return self._until_then(np.full(len(self.born), moment))
        begins, ends = self._times[place - 1], self._times[place]
        before = self._totals[place - 1]
        return before + (self._totals[place] - before) * ((moment - begins) / (ends - begins))

    def _until_then(self, moments: Floats) -> Floats:
        minutes = self._stack()
        last = len(minutes) - 1
        place = np.clip(moments / MINUTE_S - self._first_minute, 0.0, last)
        below = np.minimum(place.astype(np.int64), max(last - 1, 0))
        column = np.arange(len(moments))
        before = minutes[below, column]
        return before + (minutes[np.minimum(below + 1, last), column] - before) * (place - below)


class Rhythm:
    """What comes back after the same number of minutes: rises and falls beside the level, by how much."""

    def __init__(self, *, alike: float, quiet: float, floor_rate: float) -> None:
        """See ForecastSettings."""
        self._alike, self._quiet, self._floor_rate = alike, quiet, floor_rate
        self._looked: Floats = np.zeros(0)
        self.period_s: Floats = np.zeros(0)
        """Of each pipeline [I]; 0: none is known."""

    def carry(self, old: Ints, now: float) -> None:
        """Go on with other pipelines: see `carry`."""
        self._looked, self.period_s = carry(self._looked, old, now), carry(self.period_s, old)

    def look(self, past: Past) -> None:
        """Look for periods anew, now and then: the lag at which deviations from the level are most alike."""
        due = np.flatnonzero(past.now - self._looked >= _LOOK_S)
        if not len(due):
            return
        # Why not all: at one look's time after another, each turn has a few.
        due = due[: max(8, len(self._looked) // 32)]
        self._looked[due] = past.now
        logs = np.log(past.minutes(_LOOK_MINUTES)[:, due] + 1.0)
        if len(logs) < 3 * _SHORTEST_MINUTES + _LEVEL_MINUTES:
            return
        total = np.cumsum(np.vstack([np.zeros(len(due)), logs]), axis=0)
        level = (total[_LEVEL_MINUTES:] - total[:-_LEVEL_MINUTES])[:-1] / _LEVEL_MINUTES
        away = logs[_LEVEL_MINUTES:] - level
        lag, alike = _likest(away - away.mean(axis=0))
        self.period_s[due] = np.where(alike >= self._alike, lag * MINUTE_S, 0.0)

    def log_ratio(self, past: Past, begins_s: float, ends_s: float) -> Floats:
        """The logarithm [I] of arrivals in a window beside the level now, as one and two periods ago; 0: no rhythm."""
        found, count = np.zeros(len(self.period_s)), np.zeros(len(self.period_s))
        known = self.period_s > 0.0
        for times in (1, 2):
            back = times * self.period_s
            then = past.now - back
            known = known & (then - past.born >= LEVEL_S) & (np.minimum(ends_s, back) > begins_s)
            if not known.any():
                break
            ends = np.where(known, np.minimum(ends_s, back), begins_s + 1.0)
            came = past.rates_then(then + begins_s, then + ends)
            level = past.rates_then(then - LEVEL_S, then)
            noise = 1.5 / np.sqrt(np.maximum(came, 0.0) * (ends - begins_s) + 1.0)
            away = np.log((came + self._floor_rate) / (level + self._floor_rate))
            found += np.where(known, np.copysign(np.maximum(0.0, np.abs(away) - self._quiet - noise), away), 0.0)
            count += known
        return found / np.maximum(count, 1.0)


def _likest(away: Floats) -> tuple[Ints, Floats]:
    """The lag [I] at which `away` [M, I] is most like itself, and how much: the correlation of the parts that meet."""
    length = len(away)
    spectrum = np.fft.rfft(away, 2 * length, axis=0)
    products = np.fft.irfft(np.abs(spectrum) ** 2, axis=0)
    squares = np.vstack([np.zeros(away.shape[1]), np.cumsum(away**2, axis=0)])
    lags = np.arange(_SHORTEST_MINUTES, int(length / 1.5))
    norms = np.sqrt(np.maximum((squares[-1] - squares[lags]) * squares[length - lags], 0.0))
    alike = products[lags] / np.maximum(norms, 1e-9)
    best = np.argmax(alike, axis=0)
    return lags[best], alike[best, np.arange(away.shape[1])]
