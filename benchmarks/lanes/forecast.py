"""A forecast of requests per minute from a job's own past minutes, with quantiles; learns as it goes.

Stands in for Faro's N-HiTS networks, whose weights are not published: for each job and horizon the best of several
simple forecasts by its error so far, and the quantiles of that forecast's own past errors. Some of them look for a
pattern of 15 minutes, which is what Faro's networks are given to see (three of the ten jobs have one; six hours of the
trace are a day that was shortened). `Future` knows the true counts.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from headgate.allocation.arrays import Floats, Ints

REMEMBERED = 90  # errors by job and horizon
FEWEST = 12  # errors of a job's own, before those of all jobs are used
PERIOD = 15  # minutes
_PERIODS = 3
_SPANS = (3, 5)


class Forecast(Protocol):
    """Sees every minute that passed, foretells the next ones."""

    def add_minute(self, counts: Floats) -> None:
        """The requests of the minute that ended, by job."""
        ...

    def quantile(self, share: float) -> Floats:
        """Requests per minute of the next minutes ([job, step]) that are exceeded with probability 1 - `share`."""
        ...


class OwnPast:
    """The forecast from past minutes."""

    def __init__(self, jobs: int, steps: int) -> None:
        """`steps` minutes ahead."""
        self._steps = steps
        self._past: list[Floats] = []
        self._said: list[Floats] = []  # of each minute: [way, job, step]
        self._errors: list[list[Floats]] = [[] for _ in range(steps)]  # by step: [way, job], log of true / said
        self._level: Floats = np.zeros(jobs)

    def add_minute(self, counts: Floats) -> None:
        """The requests of the minute that ended, by job."""
        for step in range(min(self._steps, len(self._said))):
            said = self._said[-1 - step][:, :, step]
            errors = self._errors[step]
            errors.append(np.log((counts + 1.0) / (said + 1.0)))
            del errors[:-REMEMBERED]
        self._level = counts if not self._past else 0.5 * self._level + 0.5 * counts
        self._past.append(np.asarray(counts, float))
        self._said.append(self._say())
        del self._past[: -PERIOD * _PERIODS - 3], self._said[: -self._steps - 1]

    def quantile(self, share: float) -> Floats:
        """Requests per minute of the next minutes ([job, step]) that are exceeded with probability 1 - `share`."""
        said = self._said[-1]
        jobs = said.shape[1]
        out = np.empty((jobs, self._steps))
        for step in range(self._steps):
            if not self._errors[step]:
                out[:, step] = said[0, :, step]
                continue
            errors = np.array(self._errors[step])  # [time, way, job]
            best = np.argmin(np.abs(errors).mean(axis=0), axis=0)
            for job in range(jobs):
                own = errors[:, best[job], job]
                used = own if len(own) >= FEWEST else errors[:, best[job], :].ravel()
                out[job, step] = said[best[job], job, step] * np.exp(np.quantile(used, share))
        return np.maximum(out, 1.0)

    def _say(self) -> Floats:
        past = np.array(self._past)
        level = [past[-1], *(past[-span:].mean(axis=0) for span in _SPANS), self._level]
        flat = [np.repeat(way[:, None], self._steps, axis=1) for way in level]
        slope = (past[-1] - past[-min(4, len(past))]) / max(1, min(4, len(past)) - 1)
        damped = np.cumsum(0.7 ** np.arange(1, self._steps + 1))
        ways = [*flat, np.maximum(0.0, past[-1][:, None] + slope[:, None] * damped)]
        return np.array([*ways, *self._say_again(past, flat[0])])

    def _say_again(self, past: Floats, otherwise: Floats) -> list[Floats]:
        """What came at the same minutes of the last periods; the same in the ratio of now to then, whole and half."""
        if len(past) < PERIOD + 3:
            return [otherwise] * 4
        now, turns = len(past), min(_PERIODS, (len(past) - 3) // PERIOD)
        ahead = now + np.arange(self._steps)
        seen = np.mean([past[ahead - PERIOD * turn] for turn in range(1, turns + 1)], axis=0).T
        then = np.mean(
            [past[now - 3 - PERIOD * turn : now - PERIOD * turn] for turn in range(1, turns + 1)], axis=(0, 1)
        )
        ratio = np.clip((past[-3:].mean(axis=0) + 1.0) / (then + 1.0), 0.2, 5.0)[:, None]
        return [past[ahead - PERIOD].T, seen, seen * ratio, 0.5 * (seen * ratio + otherwise)]


class Future:
    """The true counts: what no forecast can beat. All quantiles are the same."""

    def __init__(self, counts: Ints, steps: int) -> None:
        """`counts`: [minute, job]."""
        self._counts = counts
        self._steps = steps
        self._minute = 0

    def add_minute(self, counts: Floats) -> None:
        """The requests of the minute that ended, by job."""
        del counts
        self._minute += 1

    def quantile(self, share: float) -> Floats:
        """The requests of the next minutes; the last minute is repeated at the end."""
        del share
        minutes = np.minimum(self._minute + np.arange(self._steps), len(self._counts) - 1)
        return np.maximum(self._counts[minutes].T.astype(float), 1.0)
