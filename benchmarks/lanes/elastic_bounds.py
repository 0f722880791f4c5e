"""What rented units are compared with: the fewest constant ones, and the schedule of who knows what will come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.lanes.elastic import LATE_PART, MINUTE, Look, Outcome, Units
from benchmarks.lanes.elastic_rules import Constant
from headgate.allocation.arrays import Floats, Ints

Play = Callable[[Any, Units], Outcome]
"""Runs a policy on the lane's requests."""

_ROUNDS, _REPAIRS, _TRIED = 12, 5, 0.3  # of the search for the schedule
_MOST_BITS = 8  # units of a pipeline: below 256


class Schedule:
    """Units by minute that were fixed beforehand."""

    decide_s, wake = MINUTE, False

    def __init__(self, units_by: Ints) -> None:
        """`units_by` [P, minute]."""
        self._units_by = units_by
        self.first = units_by[:, 0]

    def decide(self, look: Look) -> Ints:
        """The units of each pipeline."""
        return self._units_by[:, look.now // MINUTE]


def fewest_constant(play: Play, units: Units, pipelines: int) -> Ints:
    """The fewest constant units [P] with which a pipeline keeps 99 % of its minutes with requests; by bisection."""
    least = np.zeros(pipelines, np.int64)  # below what is enough, by how far is halved
    busy = np.zeros((pipelines, 1), bool)
    for bit in reversed(range(_MOST_BITS)):
        tried = least + (1 << bit)
        outcome = play(Constant(tried), units)
        busy = outcome.came_by > 0
        enough = (outcome.kept & busy).sum(axis=1) >= (1.0 - LATE_PART) * busy.sum(axis=1)
        least = np.where(enough, least, tried)
    return np.where(busy.any(axis=1), least + 1, 0)


def offered(counts: Any, service_s: Floats, window: int, slots: int) -> Floats:
    """The load in units [P, steps] if nobody ever waited, as expected from the requests that came."""
    steps = counts.shape[1]
    load = np.zeros(counts.shape)
    inside = np.zeros(len(counts))
    ordered = np.ascontiguousarray(counts.T)
    for step in range(steps):
        service = service_s[:, step // window]
        came = ordered[step]
        stays = np.exp(-1.0 / service)
        # Within their first second some of those that come have already gone.
        inside = inside * stays + came * service * (1.0 - stays)
        load[:, step] = inside
    return load / slots


def schedule(play: Play, load: Floats, wanted: float) -> tuple[Ints, Outcome]:
    """Units by minute [P, minute] of who knows each second's requests, with nearly the least unit-hours.

    Begins with what carries a minute's mean load, gives more to minutes that fail, the cheapest first, and takes away
    where a minute can spare a unit, for some rounds. Units start in no time. Ends within the SLO in `wanted` of the
    minutes with requests. Not proven to be the least: a search.
    """
    instant = Units(start_s=0)
    mean = load.reshape(len(load), -1, MINUTE).mean(axis=2)
    units_by = np.ceil(mean - 1e-9).astype(np.int64)
    least = np.ceil(0.95 * mean).astype(np.int64)
    mended = np.zeros(units_by.shape, np.int64)
    chance = np.random.default_rng(0)
    best: tuple[Ints, Outcome] | None = None
    for number in range(_ROUNDS):
        outcome = play(Schedule(units_by), instant)
        if outcome.slo_minutes >= wanted and (best is None or outcome.unit_hours.sum() < best[1].unit_hours.sum()):
            best = units_by.copy(), outcome
        kept = np.ones(units_by.shape, bool)
        kept[:, len(kept.T) - len(outcome.kept.T) :] = outcome.kept  # the beginning is not judged
        short = int((~kept).sum() - (1.0 - wanted) * (outcome.came_by > 0).sum())
        more = np.maximum(1, units_by // 12) * (1 + mended)
        failed = np.flatnonzero(~kept.ravel())
        cheap = failed[np.argsort(more.ravel()[failed], kind="stable")[: max(0, 2 * short)]]
        if number < _ROUNDS - _REPAIRS:  # the last rounds only repair
            spare = kept & (mended == 0) & (units_by > least) & (chance.random(units_by.shape) < _TRIED)
            units_by[spare] -= 1
        units_by.ravel()[cheap] += more.ravel()[cheap]
        mended.ravel()[cheap] += 1
    if best is None:
        raise RuntimeError(f"no schedule within the SLO in {wanted:.0%} of the minutes was found")
    return best
