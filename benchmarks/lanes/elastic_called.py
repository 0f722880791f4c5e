"""A rule for rented units: one is kept while the chance that the next minute calls it is worth its price.

A unit is called when requests would have been late without it, whatever is asked for from then on: those inside, and
those that come until a new one serves. How likely the next minute calls the n-th unit is counted, over all pipelines
together, by how long ago it was called last and in how many minutes of the last ten and sixty. Never fewer than the
present needs. Why not the value curves (`elastic_headgate`): a minute is lost with its first hundredth, and forecast
quantiles end far below that; why not a forecast of the rate: for who comes seldom, the silence since the last request
tells as much as all else. The product's own loop does not decide by this rule.
Source: keep-alive by idle times, M. Shahrad et al., Serverless in the Wild, ATC 2020; here for every unit.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from benchmarks.lanes.elastic import BEGUN, CAME, MINUTE, Look, Units, held_s
from headgate.allocation.arrays import Floats, Ints
from headgate.allocation.simulator.service_times import ServiceTimes

MOST = 96  # units of a pipeline whose calls are counted
KINDS = 3  # of units: the first, the second, all others
AGES_S = np.array([60.0, 120.0, 180.0, 300.0, 600.0, 1200.0, 2400.0, 4800.0])
OFTEN_10 = np.array([0.3, 1.0, 2.0, 4.0, 7.0])
OFTEN_60 = np.array([0.5, 1.5, 4.0, 10.0, 25.0, 45.0])
"""Where cells of the table end: seconds since the last call, minutes with calls among the last ten and sixty."""

_FORGET_10, _FORGET_60 = math.exp(-1 / 10), math.exp(-1 / 60)
_KNOWN = 20.0  # minutes that a cell of its age alone weighs in each finer one
_FIRST_KNOWN, _FIRST_PART = 10.0, 0.3  # of minutes in a cell before any was counted; chance times age in minutes
_NEVER = -1e6
_LEVEL_S = 10.0  # memory of the present rate
_SERVED = 200.0  # requests that the mean service time remembers
_FIRST_S, _LEAST_S = 2.0, 0.05  # service time believed before any request was served, and at least


class Table(NamedTuple):
    """Minutes counted, and those of them that called: by kind of unit and cell [KINDS, C], and by age alone."""

    minutes: Floats
    calls: Floats
    aged_minutes: Floats
    aged_calls: Floats


class Past(NamedTuple):
    """Of pipelines [P]: `rate` a second, `known` units that were ever called. Of units [P, MOST]: `at` the last call,
    `called` in this minute, `often_10`, `often_60`, the `cell` at this minute's begin (-1: none), `wanted` last when.
    Of the last seconds [P, ring]: requests `inside` and all that `came` until then."""

    rate: Floats
    known: Ints
    at: Floats
    called: Floats
    often_10: Floats
    often_60: Floats
    cell: Ints
    wanted: Floats
    inside: Floats
    came: Floats


class Called:
    """The units of least price and chance of being called in vain; `price` and `calm_s` are the knobs.

    `price` is what a unit must bring of a minute within the SLO, each minute; a unit that was wanted is held for
    `calm_s`. Decides every second.
    """

    decide_s, wake = 1, True

    def __init__(self, units: Units, pipelines: int, *, price: float, calm_s: int) -> None:
        """See the class."""
        self.first = np.zeros(pipelines, np.int64)
        self._units, self._price, self._calm_s = units, price, calm_s
        self._service_times = ServiceTimes(np.full(pipelines, _FIRST_S), told=1.0, remembered=_SERVED)
        self._past = _make_past(pipelines, units.start_s + 3)
        self._table = _make_table()

    def decide(self, look: Look) -> Ints:
        """The units of each pipeline."""
        self._service_times.add(held_s(look, self.decide_s), look.seen[:, BEGUN])
        service_s = np.maximum(self._service_times.seconds, _LEAST_S)
        inside = (look.held + look.waiting).astype(np.float64)
        units = self._units
        _learn(
            self._past, self._table, look.now, inside, look.seen[:, CAME], service_s,
            units.start_s + self.decide_s, units.wait_s, units.slots, AGES_S, OFTEN_10, OFTEN_60,
        )  # fmt: skip
        return _choose(
            self._past, self._table, look.now, inside, service_s, units.start_s + self.decide_s, units.slots,
            self._price, self._calm_s, AGES_S, OFTEN_10, OFTEN_60,
        )  # fmt: skip


def _make_past(pipelines: int, ring: int) -> Past:
    def full(value: float, *more: int) -> Floats:
        return np.full((pipelines, *more), value)

    return Past(
        rate=full(0.0), known=np.zeros(pipelines, np.int64), at=full(_NEVER, MOST), called=full(0.0, MOST),
        often_10=full(0.0, MOST), often_60=full(0.0, MOST), cell=np.full((pipelines, MOST), -1),
        wanted=full(_NEVER, MOST), inside=full(0.0, ring), came=full(0.0, ring),
    )  # fmt: skip


def _make_table() -> Table:
    ages = len(AGES_S) + 1
    cells = ages * (len(OFTEN_10) + 1) * (len(OFTEN_60) + 1)
    minutes = np.concatenate([[MINUTE / 2], AGES_S]) / MINUTE
    first = np.full((KINDS, ages), _FIRST_KNOWN)
    return Table(
        minutes=np.zeros((KINDS, cells)), calls=np.zeros((KINDS, cells)), aged_minutes=first,
        aged_calls=first * np.minimum(0.5, _FIRST_PART / minutes),
    )  # fmt: skip


@njit(cache=True)
def _bin(value: float, edges: Any) -> int:
    place = 0
    while place < len(edges) and value >= edges[place]:
        place += 1
    return place


@njit(cache=True)
def _cell(past: Past, i: int, unit: int, now: int, ages: Any, often_10: Any, often_60: Any) -> int:
    place = _bin(now - past.at[i, unit], ages)
    place = place * (len(often_10) + 1) + _bin(past.often_10[i, unit], often_10)
    return place * (len(often_60) + 1) + _bin(past.often_60[i, unit], often_60)


@njit(cache=True)
def _learn(
    past: Past, table: Table, now: int, inside: Any, came: Any, service_s: Any, ahead: int, wait_s: int, slots: int,
    ages: Any, often_10: Any, often_60: Any,
) -> None:  # fmt: skip
    """Note what was seen, whom the moment `ahead` seconds ago has called, and what the minutes that end have told."""
    ring = past.came.shape[1]
    follow = 1.0 - math.exp(-1.0 / _LEVEL_S)
    for i in range(len(inside)):
        past.rate[i] += (came[i] - past.rate[i]) * follow
        past.came[i, now % ring] = (past.came[i, (now - 1) % ring] if now > 0 else 0.0) + came[i]
        past.inside[i, now % ring] = inside[i]
        units = min(MOST, _called_by(past, i, now, service_s[i], ahead, wait_s, slots))
        past.known[i] = max(past.known[i], units)
        for unit in range(units):
            past.at[i, unit] = now
            past.called[i, unit] = 1.0
        if (now + i) % MINUTE == 0:
            for unit in range(past.known[i]):
                _count(past, table, i, unit)
                past.cell[i, unit] = _cell(past, i, unit, now, ages, often_10, often_60)


@njit(cache=True)
def _called_by(past: Past, i: int, now: int, service_s: float, ahead: int, wait_s: int, slots: int) -> int:
    """The units without which requests of the last `ahead` seconds had been late, had none been asked for since.

    Who was inside then and came since, less who finishes while the last one may wait.
    """
    then = now - ahead
    if then < 0:
        return 0
    ring = past.came.shape[1]
    before, there = past.came[i, then % ring], past.inside[i, then % ring]
    most = 1.0 if past.came[i, now % ring] > before else 0.0
    for after in range(1, ahead + 1):
        all_of_them = there + past.came[i, (then + after) % ring] - before
        most = max(most, all_of_them / (1.0 + (after + wait_s) / service_s))
    return math.ceil(most / slots)


@njit(cache=True)
def _count(past: Past, table: Table, i: int, unit: int) -> None:
    """A minute of a unit has ended."""
    called, cell, kind = past.called[i, unit], past.cell[i, unit], min(unit, KINDS - 1)
    if cell >= 0:
        age = cell // (table.minutes.shape[1] // table.aged_minutes.shape[1])
        table.minutes[kind, cell] += 1.0
        table.calls[kind, cell] += called
        table.aged_minutes[kind, age] += 1.0
        table.aged_calls[kind, age] += called
    past.often_10[i, unit] = past.often_10[i, unit] * _FORGET_10 + called
    past.often_60[i, unit] = past.often_60[i, unit] * _FORGET_60 + called
    past.called[i, unit] = 0.0


@njit(cache=True)
def _choose(
    past: Past, table: Table, now: int, inside: Any, service_s: Any, ahead: int, slots: int, price: float,
    calm_s: int, ages: Any, often_10: Any, often_60: Any,
) -> Any:  # fmt: skip
    """The units [P] of least price and chance that one more is called; what the present needs, and calm, at least."""
    chosen = np.zeros(len(inside), np.int64)
    by_age = table.minutes.shape[1] // table.aged_minutes.shape[1]
    for i in range(len(inside)):
        # Who is inside and comes until a new unit serves, less who finishes until then.
        need = (inside[i] + past.rate[i] * ahead) / (1.0 + ahead / service_s[i])
        least = max(math.ceil(need / slots - 1e-9), 1 if inside[i] > 0.0 else 0)
        best, lowest, chance = least, math.inf, 0.0
        for units in range(max(least, past.known[i]), least - 1, -1):
            if units < past.known[i]:
                cell, kind = _cell(past, i, units, now, ages, often_10, often_60), min(units, KINDS - 1)
                aged = table.aged_calls[kind, cell // by_age] / table.aged_minutes[kind, cell // by_age]
                own = (table.calls[kind, cell] + _KNOWN * aged) / (table.minutes[kind, cell] + _KNOWN)
                chance = max(chance, own)  # who calls a unit calls all before it
            if price * units + chance <= lowest:
                best, lowest = units, price * units + chance
        for unit in range(min(best, MOST)):
            past.wanted[i, unit] = now
        while best < MOST and now - past.wanted[i, best] < calm_s:
            best += 1
        chosen[i] = best
    return chosen
