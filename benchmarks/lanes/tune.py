"""The training ground, where the allocation's constants are chosen: `python -m benchmarks.lanes.tune decide_s=5,3`.

ServeGen's days 1 to 5 and nothing else. Ten pipelines share a fixed budget, request by request, as in lane F but
under other loads: clients whose 10-minute windows are played faster, scaled so that the group needs a given share of
the budget; within a window requests come as densely packed as the trace's CV says. Each argument is a setting
and the values to compare; `true` is printed beside: the same decisions with forecasts that are never wrong, which
tells what is lost by forecasting and what by planning.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np

from benchmarks.lanes import serve_gen
from benchmarks.lanes.headgate_policy import service
from benchmarks.lanes.lane_f import DRAIN_S, MODES, SERVICE, score
from benchmarks.lanes.traces import MINUTE_S, WORK_LEAST_S, WORK_SCALE_S, WORK_SHAPE
from headgate.allocation.arrays import Floats, Ints
from headgate.allocation.forecast import PROBABILITIES, ForecastSettings, Window
from headgate.allocation.settings import DEFAULTS, TargetSettings
from headgate.allocation.simulator.pilot import Charge, Pilot
from headgate.allocation.simulator.run import Rules, View, run
from headgate.allocation.simulator.world import Requests, World

DAYS = (1, 5)
GROUP = 10
BUDGET = 32
SHARES = (0.5, 0.6)  # of the budget, that a group needs on the average
PACES_S = (60.0, 120.0)  # in which a window of ten minutes is played
ACTIVE = 0.6  # of the windows: those in which a pipeline must have requests, to be drawn
STEEPEST, HIGHEST = 6.0, 10.0  # 99th percentile and peak beside the mean; more would swamp a group
BLOCK_S = 15.0  # how long a cluster of requests lasts
DENSEST = 0.05  # variance of a block's rate beside its mean, at most
STEP_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """Ten pipelines and a budget: true rates in steps of STEP_S ([step, pipeline], requests a second), requests."""

    budget: int
    rates: Floats
    requests: Sequence[Requests]

    @property
    def minutes(self) -> int:
        """How long it lasts."""
        return round(len(self.rates) * STEP_S / MINUTE_S)


@lru_cache(maxsize=1)
def _load() -> tuple[Floats, Floats]:
    """Rates and CVs [pipeline, window] of the pipelines that are active on most of days 1 to 5."""
    trace = serve_gen.load().days(DAYS)
    active = np.flatnonzero((trace.rate > 0.0).mean(axis=1) >= ACTIVE)
    return trace.rate[active], np.where(trace.rate > 0.0, trace.cv, 1.0)[active]


def draw_ground(seed: int, minutes: int = 120, *, pace_s: float | None = None, steps: bool = False) -> Ground:
    """A group of ten over so many minutes; paces (unless one is given) and shares take turns with the seed.

    Rates go in lines from window to window, or in `steps`.
    """
    chance = np.random.default_rng([seed, 7])
    paces_s = PACES_S if pace_s is None else (pace_s,)
    pace_s, share = paces_s[seed % len(paces_s)], SHARES[seed // len(paces_s) % len(SHARES)]
    rates, cvs = _load()
    wide = int(minutes * MINUTE_S / pace_s) + 2
    begins = int(chance.integers(0, rates.shape[1] - wide))
    rates, cvs = rates[:, begins : begins + wide], cvs[:, begins : begins + wide]
    mean = np.maximum(rates.mean(axis=1), 1e-9)
    calm = (np.quantile(rates, 0.99, axis=1) < STEEPEST * mean) & (rates.max(axis=1) < HIGHEST * mean)
    calm &= (rates > 0.0).mean(axis=1) > ACTIVE
    members = chance.choice(np.flatnonzero(calm), GROUP, replace=False)
    need = np.exp(0.6 * chance.standard_normal(GROUP))
    need *= share * BUDGET / need.sum()
    at = (np.arange(0.0, minutes * MINUTE_S, STEP_S) + STEP_S / 2.0) / pace_s
    played = rates[members].T[at.astype(np.int64)]
    if not steps:
        played = np.stack([np.interp(at, np.arange(wide) + 0.5, rates[one]) for one in members], axis=1)
    played *= need / service().mean_s / played.mean(axis=0)
    dense = _clusters(chance, played, cvs[members].T[at.astype(np.int64)])
    requests = [_draw(chance, played[:, one] * dense[:, one]) for one in range(GROUP)]
    return Ground(budget=BUDGET, rates=played, requests=requests)


def _clusters(chance: np.random.Generator, rates: Floats, cvs: Floats) -> Floats:
    """By how much [step, pipeline] requests come denser than the rate says: gaps with a CV do so in each block."""
    each = round(BLOCK_S / STEP_S)
    variance = np.clip((cvs**2 - 1.0) / np.maximum(rates * BLOCK_S, 1e-9), 1e-6, DENSEST)[::each]
    return np.repeat(chance.gamma(1.0 / variance) * variance, each, axis=0)[: len(rates)]


def _draw(chance: np.random.Generator, rates: Floats) -> Requests:
    counts = chance.poisson(rates * STEP_S)
    at = np.repeat(np.arange(len(rates)) * STEP_S, counts) + chance.random(int(counts.sum())) * STEP_S
    work = WORK_LEAST_S + WORK_SCALE_S * np.exp(WORK_SHAPE * chance.standard_normal(len(at)))
    return Requests(at=np.sort(at), work=work)


class Seer:
    """Forecasts that know the true rates: in the place of the pilot's own, to tell planning from forecasting."""

    def __init__(self, rates: Floats) -> None:
        """`rates` [step, pipeline]."""
        self._total = np.vstack([np.zeros(rates.shape[1]), np.cumsum(rates, axis=0)]) * STEP_S
        self._edges = np.arange(len(self._total)) * STEP_S
        self._now = 0.0

    def learn(self, arrivals: Mapping[str, float], elapsed_s: float) -> None:
        """Time passes."""
        del arrivals
        self._now += elapsed_s

    def forecast(self, name: str, windows: Sequence[Window]) -> tuple[tuple[float, ...], ...]:
        """The rate that will be, the same at each of PROBABILITIES."""
        total, end = self._total[:, int(name)], float(self._edges[-1])
        told: list[tuple[float, ...]] = []
        for window in windows:
            begins, ends = min(self._now + window.begins_s, end - 1.0), min(self._now + window.ends_s, end)
            came = float(np.interp(ends, self._edges, total) - np.interp(begins, self._edges, total))
            told.append((came / (ends - begins),) * len(PROBABILITIES))
        return tuple(told)


class _Begun:
    """The pilot, beginning with equal shares."""

    def __init__(self, pilot: Pilot, budget: int) -> None:
        self._pilot, self._budget = pilot, budget

    def decide(self, view: View) -> Ints:
        """The replicas of each pipeline."""
        counts = self._pilot.decide(view)
        share, rest = divmod(self._budget, len(counts))
        return counts if view.now > 0.0 else share + (np.arange(len(counts)) < rest).astype(np.int64)


def play(ground: Ground, mode: str, settings: TargetSettings = DEFAULTS, *, true: bool = False) -> tuple[float, float]:
    """The part of requests late, as lane F scores it, and moves an hour; `true`: with the Seer's forecasts."""
    rules = Rules(budget=ground.budget, decide_s=settings.decide_s, **MODES[mode])
    pilot = Pilot([Charge(service=service(), room=SERVICE.queue)] * GROUP, rules, settings)
    if true:
        pilot.forecasts = Seer(ground.rates)
    world = World([SERVICE] * GROUP, ground.requests, ground.budget + GROUP, turns=True)
    account = run(world, _Begun(pilot, ground.budget), rules, ground.minutes * MINUTE_S + DRAIN_S, (1,) * GROUP)
    return score(world, ground.minutes)["violations"], (account.starts + account.releases) * 60.0 / ground.minutes


def vary(name: str, value: float | None) -> TargetSettings:
    """The settings with one of them, or one of the forecast's, changed. Raises AttributeError when there is none."""
    if value is None:
        return DEFAULTS
    changed: Any = {name: value}
    if name in {one.name for one in fields(ForecastSettings)}:
        return replace(DEFAULTS, forecast=replace(DEFAULTS.forecast, **changed))
    if name not in {one.name for one in fields(TargetSettings)}:
        raise AttributeError(f"there is no setting {name}")
    return replace(DEFAULTS, **changed)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.lanes.tune", description=__doc__)
    parser.add_argument("settings", nargs="*", help="NAME=VALUE,VALUE,...")
    parser.add_argument("--grounds", type=int, default=4)
    parser.add_argument("--minutes", type=int, default=120)
    parser.add_argument("--modes", nargs="*", choices=tuple(MODES), default=list(MODES))
    asked = parser.parse_args(arguments)
    grounds = [draw_ground(seed, asked.minutes) for seed in range(1, asked.grounds + 1)]
    rows: list[tuple[str, TargetSettings, bool]] = [("as committed", DEFAULTS, False), ("true", DEFAULTS, True)]
    for name, values in (one.split("=") for one in asked.settings):
        rows += [(f"{name}={value}", vary(name, float(value)), False) for value in values.split(",")]
    for title, settings, true in rows:
        for mode in asked.modes:
            runs = [play(ground, mode, settings, true=true) for ground in grounds]
            late, moves = np.mean(runs, axis=0)
            each = " ".join(f"{one:.4f}" for one, _ in runs)
            print(f"{title:28} {mode:5} late {late:.4f} [{each}] {moves:6.0f} moves/h", flush=True)


if __name__ == "__main__":
    main()
