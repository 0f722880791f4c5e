"""How likely the next minute calls each replica of a pipeline that is paid for by use: who is kept alive.

The n-th replica is called when requests would be late without it, whatever is asked for from then on: those inside, and
those that come until a new one serves. How likely that is was counted, over all pipelines together, by how long ago it
was called last and in how many of the last minutes it was. Why not the forecasts: their quantiles end far below one
lost minute in a hundred, and for who comes seldom the silence since the last request tells as much as all else. Holds
what is between two decisions.
Source: keep-alive by idle times, M. Shahrad et al., Serverless in the Wild, ATC 2020; here for every replica.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from headgate.allocation.arrays import Floats, Ints
from headgate.allocation.past import carry

MINUTE_S = 60.0
LATE_PART = 0.01
"""A minute is within the SLO when no more than this part of its requests waits too long."""

_MOST = 256  # replicas of a pipeline whose calls are told apart
_LEAST_S = 0.05  # service time
_LONGEST_S = 128.0  # that is looked back for calls
_KINDS = 3  # of replicas: the first, the second, all others
_AGES_S = np.array([60.0, 120.0, 180.0, 300.0, 600.0, 1200.0, 2400.0, 4800.0])
_OFTEN_10 = np.array([0.3, 1.0, 2.0, 4.0, 7.0])
_OFTEN_60 = np.array([0.5, 1.5, 4.0, 10.0, 25.0, 45.0])
_AGES, _CELLS = len(_AGES_S) + 1, (len(_OFTEN_10) + 1) * (len(_OFTEN_60) + 1)
"""Where cells of the counts end: seconds since the last call, minutes with calls among the last ten and sixty; and how
many ages there are, and cells of each."""

_FORGET_10, _FORGET_60 = math.exp(-1.0 / 10.0), math.exp(-1.0 / 60.0)
_SLACK = 0.02  # of a replica: a load that is so little above a whole number asks for no further one
_RATE_S = 10.0  # memory of the present rate
_CALM_S, _CALM_HALF = 180.0, 4.0  # for which the first stays after a call, and the replica that stays half as long
_KNOWN = 20.0  # minutes that an age alone weighs in each of its cells
_FIRST_KNOWN, _FIRST_PART = 10.0, 0.3  # minutes in a cell before any was counted; chance times age in minutes


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What pipelines do, each [P]: requests that `came` since the last look and those `inside` now; the seconds one
    holds a slot, those until a new replica serves, those a request may wait, and the slots of a replica."""

    came: Floats
    inside: Floats
    service_s: Floats
    ahead_s: Floats
    wait_s: Floats
    slots: Floats


class KeepAlive:
    """How many replicas of each pipeline are worth their price. Replicas [R]: the first pipeline's, the second's ..."""

    def __init__(self, pipelines: int) -> None:
        """So many pipelines, of which nothing is known."""
        self._now = 0.0
        self._times: Floats = np.zeros(1)
        self._came: Floats = np.zeros((1, pipelines))
        self._inside: Floats = np.zeros((1, pipelines))
        self._in_a_minute: Floats = np.zeros(pipelines)
        self._rate: Floats = np.zeros(pipelines)
        # Why not all at once: one turn in a minute would take as long as all others together.
        self._minute_began: Floats = -_stagger(pipelines)
        self._needed: Ints = np.zeros(pipelines, np.int64)  # by the present
        self._known: Ints = np.zeros(pipelines, np.int64)  # replicas that were ever called or needed
        self._owner: Ints = np.zeros(0, np.int64)  # whose each replica [R] is
        self._number: Ints = np.zeros(0, np.int64)  # how many of the same pipeline come before it
        self._called_at: Floats = np.zeros(0)
        self._chosen_at: Floats = np.zeros(0)
        self._calm_s: Floats = np.zeros(0)
        self._often: Floats = np.zeros((2, 0))  # of the last ten minutes and of the last sixty
        self._cell: Floats = np.zeros(0)  # at its minute's begin, counted from 1; 0: it was not there
        self._minutes: Floats = np.zeros(_KINDS * _AGES * _CELLS)
        self._calls: Floats = np.zeros(_KINDS * _AGES * _CELLS)
        age_minutes = np.tile(np.concatenate([[MINUTE_S / 2.0], _AGES_S]) / MINUTE_S, _KINDS)
        self._aged_minutes: Floats = np.full(_KINDS * _AGES, _FIRST_KNOWN)
        self._aged_calls: Floats = self._aged_minutes * np.minimum(0.5, _FIRST_PART / age_minutes)

    def carry(self, old: Ints) -> None:
        """Go on with other pipelines: `old` [P] has each one's place before, -1 for one that is new."""
        self._came, self._inside = carry(self._came, old), carry(self._inside, old)
        self._needed = carry(self._needed, old).astype(np.int64)
        self._in_a_minute, self._rate = carry(self._in_a_minute, old), carry(self._rate, old)
        began = self._now - _stagger(len(old))
        self._minute_began = np.where(old >= 0, carry(self._minute_began, old), began)
        first = np.cumsum(self._known) - self._known
        known = carry(self._known, old).astype(np.int64)
        self._arrange(known, known, carry(first, old).astype(np.int64))

    def learn(self, work: Work, elapsed_s: float) -> None:
        """What happened in the last `elapsed_s` seconds."""
        self._now += elapsed_s
        self._in_a_minute = self._in_a_minute * math.exp(-elapsed_s / MINUTE_S) + work.came
        reach = min(float(work.ahead_s.max(initial=0.0)), _LONGEST_S)
        first = max(0, int(np.searchsorted(self._times, self._now - reach, side="right")) - 1)
        self._times = np.append(self._times[first:], self._now)
        self._came = np.vstack([self._came[first:], self._came[-1] + work.came])
        self._inside = np.vstack([self._inside[first:], work.inside])
        self._rate += (work.came / max(elapsed_s, 1e-9) - self._rate) * -math.expm1(-elapsed_s / _RATE_S)
        self._needed = self._find_needed(work)
        called = np.minimum(self._find_called(work), _MOST)
        known = np.maximum(self._known, np.minimum(np.maximum(called, self._needed), _MOST))
        if (known > self._known).any():
            self._arrange(known, self._known, np.cumsum(self._known) - self._known)
        self._called_at[self._number < called[self._owner]] = self._now
        self._end_minutes()

    def choose(self, prices: Floats) -> Ints:
        """The replicas [P] of least price and chance that one more is called in the next minute.

        `prices` [P] are what one must bring of a minute within the SLO, each minute. What the present needs at least,
        and what was chosen a short while ago.
        """
        apart = 2.0 * len(self._known) - 2.0 * self._owner
        # Who calls a replica calls all before it: the highest from behind, within each pipeline.
        chance = np.maximum.accumulate((self._find_chances() + apart)[::-1])[::-1] - apart
        costs = np.where(self._number < self._needed[self._owner], np.inf, prices[self._owner] * self._number + chance)
        some = np.flatnonzero(self._known)
        begins = (np.cumsum(self._known) - self._known)[some]
        chosen = np.maximum(self._known, self._needed)
        if len(some):
            least = np.minimum(np.minimum.reduceat(costs, begins), (prices * chosen)[some])
            cheapest = costs <= np.repeat(least, self._known[some])
            fewest = np.minimum.reduceat(np.where(cheapest, self._number, len(self._number)), begins)
            chosen[some] = np.minimum(chosen[some], fewest)
        self._chosen_at[self._number < chosen[self._owner]] = self._now
        stays = self._now - self._chosen_at < self._calm_s
        np.maximum.at(chosen, self._owner[stays], self._number[stays] + 1)
        return chosen

    def _find_chances(self) -> Floats:
        """How likely the next minute calls each replica [R]."""
        cells = self._find_cells(np.arange(len(self._owner)))
        ages = cells // _CELLS
        aged = self._aged_calls[ages] / self._aged_minutes[ages]
        return (self._calls[cells] + _KNOWN * aged) / (self._minutes[cells] + _KNOWN)

    def _find_needed(self, work: Work) -> Ints:
        """Replicas [P] for who is inside now and comes until a new one serves, less who finishes by then."""
        inside = work.inside + self._rate * work.ahead_s
        needed = inside / (1.0 + work.ahead_s / np.maximum(work.service_s, _LEAST_S)) / work.slots
        return np.maximum(np.ceil(needed - _SLACK), work.inside > 0.0).astype(np.int64)

    def _arrange(self, known: Ints, before: Ints, firsts: Ints) -> None:
        """Make place for `known` [P] replicas, of which there are `before` [P] from place `firsts` [P] on."""
        self._known = known
        self._owner = np.repeat(np.arange(len(known)), known)
        self._number = np.arange(len(self._owner)) - np.repeat(np.cumsum(known) - known, known)
        old = np.where(self._number < before[self._owner], firsts[self._owner] + self._number, -1)
        self._called_at, self._often = carry(self._called_at, old), carry(self._often, old)
        self._cell, self._chosen_at = carry(self._cell, old), carry(self._chosen_at, old, self._now)
        self._calm_s = _CALM_S / (1.0 + self._number / _CALM_HALF)

    def _find_called(self, work: Work) -> Ints:
        """Replicas [P] without which requests had been late since `ahead_s` ago, had none been asked for since.

        Who was inside then and came since, less who finishes while the last one may wait, and less those that may be
        late in a minute.
        """
        then = np.searchsorted(self._times, self._now - np.minimum(work.ahead_s, _LONGEST_S), side="right") - 1
        there, column = np.maximum(then, 0), np.arange(len(then))
        before = self._came[there, column]
        waived = np.floor(LATE_PART * self._in_a_minute)
        all_of_them = self._came - before + self._inside[there, column] - waived
        passed_s = self._times[:, None] - self._times[there] + work.wait_s
        needed = all_of_them / (1.0 + passed_s / np.maximum(work.service_s, _LEAST_S))
        needed = np.where(np.arange(len(self._times))[:, None] > there, needed, 0.0).max(axis=0)
        # Not a part of a replica: whoever comes calls one.
        needed = np.maximum(needed, (self._came[-1] > before) & (waived < 1.0))
        return np.where(then >= 0, np.ceil(needed / work.slots), 0.0).astype(np.int64)

    def _find_cells(self, some: Ints) -> Ints:
        """The cells of `some` replicas [S] now."""
        kinds: Ints = np.minimum(self._number[some], _KINDS - 1)
        ages: Ints = kinds * _AGES + np.searchsorted(_AGES_S, self._now - self._called_at[some], side="right")
        often_10: Floats = self._often[0][some]
        often_60: Floats = self._often[1][some]
        cells = ages * (len(_OFTEN_10) + 1) + np.searchsorted(_OFTEN_10, often_10, side="right")
        return cells * (len(_OFTEN_60) + 1) + np.searchsorted(_OFTEN_60, often_60, side="right")

    def _end_minutes(self) -> None:
        """Count the minutes that have ended, and begin the next ones."""
        ends = self._now - self._minute_began >= MINUTE_S - 1e-6
        some = np.flatnonzero(ends[self._owner])
        if len(some):
            called = (self._called_at[some] > self._minute_began[self._owner[some]]).astype(np.float64)
            counted = self._cell[some] > 0.0
            cells, calls = self._cell[some][counted].astype(np.int64) - 1, called[counted]
            np.add.at(self._minutes, cells, 1.0)
            np.add.at(self._calls, cells, calls)
            np.add.at(self._aged_minutes, cells // _CELLS, 1.0)
            np.add.at(self._aged_calls, cells // _CELLS, calls)
            self._often[:, some] *= np.array([[_FORGET_10], [_FORGET_60]])
            self._often[:, some] += called
            self._cell[some] = self._find_cells(some) + 1.0
        self._minute_began[ends] = self._now


def _stagger(pipelines: int) -> Floats:
    return np.mod(np.arange(pipelines, dtype=np.float64), MINUTE_S)
