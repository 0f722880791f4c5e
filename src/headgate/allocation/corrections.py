"""How many times as long as profiled requests take in each configuration of a pipeline, learned of those it served.

The logarithm of that is what all configurations of a pipeline have in common (its requests are longer than the
profile's, the machine is busy) and what is each one's own. The former drifts, the latter is nearly 0 until seen to be
otherwise and fades back to it when it is seen no more. Holds what is between two decisions; a decision sees the
factors in its Demand.
Source: recursive least squares with a forgetting prior, the Kalman filter (R. Kalman, 1960), for all pipelines at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from headgate.allocation.arrays import Floats
from headgate.allocation.pipeline import PipelineSpec
from headgate.allocation.speeds import NO_CORRECTIONS, expect_s
from headgate.allocation.wants import LEARN_S

# Standard deviations of logarithms. None is tuned: no trace tells of the same requests on several kinds of hardware.
_COMMON = 1.5  # what a pipeline's requests may be off the profile's, before any was seen
_OWN = 0.3  # what a profile may be off by beside the others of its pipeline
_ONE = 1.0  # of one request's time: as if exponential
_LEAST = 0.05  # of the mean of ever so many requests: concurrency is told as a mean, too
_DRIFT = 0.5  # of what is in common, in so many seconds:
_DRIFT_S = 300.0

_FADE_S = 7200.0  # what is a configuration's own fades so fast once it serves nobody
_FEWEST = 8  # requests by which something is learned: the logarithm of a mean of few is too low
_MOST_OWN = math.log(4.0)
_STEP = math.log(2.0) / 12.0  # less is no news: chance alone must not move replicas


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Requests that replicas of one configuration completed: how many, the seconds that they took there, and those
    seconds times the requests that the replica had meanwhile.
    """

    settled: int = 0
    busy_s: float = 0.0
    together_s: float = 0.0

    def __add__(self, other: Served) -> Served:
        return Served(
            settled=self.settled + other.settled,
            busy_s=self.busy_s + other.busy_s,
            together_s=self.together_s + other.together_s,
        )


Keys = tuple[str, str]
"""Pipeline and configuration key."""


class Corrections:
    """The factors of all pipelines, moved on by what was served."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[str, ...]] = {}
        """The configurations of each pipeline, in the order of its spec; rows and columns of what follows."""
        self._mean: Floats = np.zeros((0, 1))
        """[I, 1 + C]: what is in common, then each one's own."""
        self._spread: Floats = np.zeros((0, 1, 1))
        """[I, 1 + C, 1 + C]: the covariance of that."""
        self._shown: Floats = np.zeros((0, 1))
        """[I, 1 + C]: the means as they were told last."""
        self._served: dict[Keys, Served] = {}
        self._elapsed_s = 0.0
        self._told: dict[str, dict[str, float]] = {}

    def learn(self, pipelines: Mapping[str, PipelineSpec], served: Mapping[Keys, Served], elapsed_s: float) -> None:
        """What was `served` in the last `elapsed_s` seconds. A pipeline that is not named is forgotten."""
        for keys, one in served.items():
            self._served[keys] = self._served.get(keys, Served()) + one
        self._elapsed_s += elapsed_s
        if self._elapsed_s < LEARN_S:
            return
        self._carry(pipelines)
        self._forget(self._elapsed_s)
        seen, noise = self._see(pipelines)
        for place in range(1, self._mean.shape[1]):
            self._observe(place, seen[:, place], noise[:, place])
        learned = {keys for keys, one in self._served.items() if one.settled >= _FEWEST or keys[0] not in pipelines}
        self._served = {keys: one for keys, one in self._served.items() if keys not in learned}
        self._tell({name for name, _ in learned})
        self._elapsed_s = 0.0

    def look(self, name: str) -> Mapping[str, float]:
        """The factors of a pipeline's configurations by key; none until it has served anybody."""
        return self._told.get(name, NO_CORRECTIONS)

    def _carry(self, pipelines: Mapping[str, PipelineSpec]) -> None:
        """Rows for these pipelines: what is known of a configuration goes along, a new one begins at 0."""
        rows = {name: tuple(one.key for one in spec.configurations) for name, spec in pipelines.items()}
        if rows == self._rows:
            return
        width = 1 + max((len(keys) for keys in rows.values()), default=0)
        mean, spread = np.zeros((len(rows), width)), np.zeros((len(rows), width, width))
        shown = mean.copy()
        spread[:, 0, 0] = _COMMON**2
        spread[:, range(1, width), range(1, width)] = _OWN**2
        before = {name: row for row, name in enumerate(self._rows)}
        for row, (name, keys) in enumerate(rows.items()):
            if name not in before:
                continue
            known = self._rows[name]
            pairs = [(0, 0), *((1 + known.index(key), 1 + keys.index(key)) for key in keys if key in known)]
            old, new = (list(places) for places in zip(*pairs, strict=True))
            mean[row, new] = self._mean[before[name], old]
            shown[row, new] = self._shown[before[name], old]
            spread[row][np.ix_(new, new)] = self._spread[before[name]][np.ix_(old, old)]
        self._rows, self._mean, self._spread, self._shown = rows, mean, spread, shown
        self._told = {name: told for name, told in self._told.items() if tuple(told) == rows.get(name)}

    def _forget(self, elapsed_s: float) -> None:
        """What is in common may have drifted meanwhile, what is each one's own is less certain and nearer to 0."""
        kept = math.exp(-elapsed_s / _FADE_S)
        own = range(1, self._mean.shape[1])
        self._mean[:, 1:] *= kept
        self._spread[:, 1:, :] *= kept
        self._spread[:, :, 1:] *= kept
        self._spread[:, own, own] += _OWN**2 * (1.0 - kept * kept)
        common = self._spread[:, 0, 0] + _DRIFT**2 * elapsed_s / _DRIFT_S
        self._spread[:, 0, 0] = np.maximum(self._spread[:, 0, 0], np.minimum(common, _COMMON**2))

    def _see(self, pipelines: Mapping[str, PipelineSpec]) -> tuple[Floats, Floats]:
        """Logarithms [I, 1 + C] of how many times as long as profiled requests took, and the variance of each."""
        seen, noise = np.zeros_like(self._mean), np.full_like(self._mean, np.inf)
        numbers = {name: row for row, name in enumerate(self._rows)}
        for (name, key), served in self._served.items():
            row = numbers.get(name)
            if row is None or key not in self._rows[name] or served.settled < _FEWEST or served.busy_s <= 0.0:
                continue
            place = self._rows[name].index(key)
            configurations = pipelines[name].configurations
            expected_s = expect_s(configurations[0], configurations[place], served.together_s / served.busy_s)
            seen[row, 1 + place] = math.log(served.busy_s / served.settled / expected_s)
            noise[row, 1 + place] = _ONE**2 / served.settled + _LEAST**2
        return seen, noise

    def _observe(self, place: int, seen: Floats, noise: Floats) -> None:
        """Take `seen` [I], the sum of what is in common and of what is one's own, known to a variance of `noise`."""
        shared = self._spread[:, :, 0] + self._spread[:, :, place]
        trust = shared / (shared[:, 0] + shared[:, place] + noise)[:, None]
        self._mean += trust * (seen - self._mean[:, 0] - self._mean[:, place])[:, None]
        self._spread -= trust[:, :, None] * shared[:, None, :]

    def _tell(self, served: set[str]) -> None:
        """New factors where something has changed enough, or where somebody was `served` for the first time."""
        moved = np.abs(self._mean - self._shown) > _STEP
        self._shown = np.where(moved, self._mean, self._shown)
        factors = np.exp(self._shown[:, :1] + np.clip(self._shown[:, 1:], -_MOST_OWN, _MOST_OWN)).tolist()
        news = set(np.flatnonzero(moved.any(axis=1)).tolist())
        for row, (name, keys) in enumerate(self._rows.items()):
            if name in served or (row in news and name in self._told):
                self._told[name] = dict(zip(keys, factors[row], strict=False))
