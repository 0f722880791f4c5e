"""Lane F: Faro's ten jobs in six hours, one pool: `python -m benchmarks.lanes.lane_f --table`.

A replica serves one request at a time and holds four; 0.72 s is the SLO. `measure` runs one policy at one capacity; the
table puts all policies beside what Faro's authors published from their own simulator.
Source: github.com/beomyeol/faro (configurations of `experiments/` and `src/simulation/`), EuroSys'25.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter
from typing import Any, Protocol, runtime_checkable

import numpy as np

from benchmarks.lanes import traces
from headgate.allocation.arrays import Floats, Ints
from headgate.allocation.simulator.run import Account, Policy, Rules, run
from headgate.allocation.simulator.world import Discipline, Requests, World

LATE_S = 0.72
SERVICE = Discipline(slots=1, depth=4, queue=52, extra_s=0.0046, late_s=LATE_S)
"""Source: job_specs.yaml (4 in flight, dropped when more than 50 wait: 51 wait and one is held by the dispatcher)."""

DRAIN_S = 60.0
CAPACITIES = (16, 20, 24, 28, 32, 36, 40, 44, 60)
SEEDS = (42, 24, 32, 40, 62)
MODES = {
    "cold": {"start_s": 35.0, "rest_s": 30.0, "wake_s": 3.0},
    "warm": {"start_s": 3.0, "rest_s": 0.0, "wake_s": 3.0},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """What a policy may know before the run; `counts` ([minute, job]) are for those that may see the future."""

    capacity: int
    mode: str
    seed: int
    counts: Ints
    requests: Sequence[Requests]

    @property
    def jobs(self) -> int:
        """How many pipelines there are."""
        return self.counts.shape[1]

    def rules(self, decide_s: float) -> Rules:
        """The rules of the run."""
        return Rules(budget=self.capacity, decide_s=decide_s, **MODES[self.mode])


@runtime_checkable
class HasRules(Protocol):
    """A policy that plays by rules of its own: who is measured against, not who is measured."""

    def rules(self) -> Rules:
        """Its rules."""
        ...


PolicyFactory = Callable[[Lane], Policy]


@lru_cache(maxsize=2)
def make_lane(capacity: int, seed: int, mode: str) -> Lane:
    """Lane F with this many replicas at most, the seed of the arrivals, and 'cold' or 'warm' switching."""
    counts, requests = _draw(seed)
    return Lane(capacity=capacity, mode=mode, seed=seed, counts=counts, requests=requests)


@lru_cache(maxsize=8)
def _draw(seed: int) -> tuple[Ints, list[Requests]]:
    counts = traces.load_counts()
    return counts, traces.draw_requests(counts, seed)


def measure(policy_factory: PolicyFactory, capacity: int, seed: int = 42, mode: str = "cold") -> dict[str, Any]:
    """One run: violation rate and lost utility (both also as Faro's script reckons them), moves per hour, seconds.

    A policy may have `first` (replicas that serve from the start, by job; one each unless it says otherwise) and
    `decide_s` (how often it is asked; 10 s unless it says otherwise).
    """
    lane = make_lane(capacity, seed, mode)
    policy = policy_factory(lane)
    world = World([SERVICE] * lane.jobs, lane.requests, capacity + lane.jobs, turns=True)
    rules = policy.rules() if isinstance(policy, HasRules) else lane.rules(getattr(policy, "decide_s", 10.0))
    first = getattr(policy, "first", (1,) * lane.jobs)
    hours = len(lane.counts) / 60.0
    began = perf_counter()
    account = run(world, policy, rules, len(lane.counts) * traces.MINUTE_S + DRAIN_S, first)
    return {
        "capacity": capacity,
        "seed": seed,
        "mode": mode,
        **score(world, len(lane.counts)),
        **_moves(account, hours),
        "seconds": perf_counter() - began,
    }


def _moves(account: Account, hours: float) -> dict[str, float]:
    return {
        "starts_per_hour": account.starts / hours,
        "moves_per_hour": (account.starts + account.releases) / hours,
        "replicas_mean": account.replica_s / (hours * 3600.0 + DRAIN_S),
        "replicas_most": account.most,
    }


def score(world: World, minutes: int, late_s: float = LATE_S) -> dict[str, float]:
    """Violations and lost utility of a world that was run.

    `violations`: 1 - mean over job-minutes of the fraction answered in time; dropped and unfinished ones are late.
    `lost_utility`: jobs - mean over minutes of the sum of min(1, SLO / p99 latency); a minute of a job without
    requests counts 0 and 1. The `faro_` pair is reckoned over one minute more, which holds the few requests that spill
    over; there a job without requests adds no utility (7 of 10 jobs with seed 42: 0.019 lost by whatever policy).
    Source: github.com/beomyeol/faro, scripts/simulation/run_suite.py.
    """
    jobs = len(world.disciplines)
    late, p99 = (np.full((minutes + 1, jobs), np.nan) for _ in range(2))
    for job in range(jobs):
        late[:, job], p99[:, job] = _by_minute(*world.requests_of(job), minutes + 1, late_s)
    utility = np.minimum(1.0, late_s / np.maximum(p99, 1e-9))
    rows = np.any(~np.isnan(late), axis=1)
    return {
        "violations": float(np.nan_to_num(late[:minutes], nan=0.0).mean()),
        "lost_utility": float(jobs - np.nan_to_num(utility[:minutes], nan=1.0).sum(axis=1).mean()),
        "faro_violations": float(np.mean(np.nanmean(late[rows], axis=1))),
        "faro_lost_utility": float(jobs - np.nan_to_num(utility, nan=0.0).sum(axis=1).mean()),
        "worst_job_violations": float(np.nan_to_num(late[:minutes], nan=0.0).mean(axis=0).max()),
    }


def _by_minute(at: Floats, latency: Floats, minutes: int, late_s: float) -> tuple[Floats, Floats]:
    """Late fraction and p99 latency of each minute; NaN where nothing came. p99 is interpolated, as pandas does it."""
    latency = np.where(np.isnan(latency), np.inf, latency)
    minute = np.minimum((at // traces.MINUTE_S).astype(np.int64), minutes - 1)
    count = np.bincount(minute, minlength=minutes)
    late = np.bincount(minute, latency > late_s, minlength=minutes)
    ordered = latency[np.lexsort((latency, minute))]
    begin = np.cumsum(count) - count
    some = count > 0
    rank = 0.99 * (count[some] - 1)
    low = begin[some] + np.floor(rank).astype(np.int64)
    share = rank - np.floor(rank)
    below, above = ordered[low], ordered[np.minimum(low + 1, len(ordered) - 1)]
    with np.errstate(invalid="ignore"):
        between = np.where(share > 0.0, below + share * (above - below), below)
    p99, fraction = np.full(minutes, np.nan), np.full(minutes, np.nan)
    p99[some] = np.where(np.isnan(between), np.inf, between)
    fraction[some] = late[some] / count[some]
    return fraction, p99


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    from benchmarks.lanes.table import print_table

    parser = argparse.ArgumentParser(prog="benchmarks.lanes.lane_f", description=__doc__)
    parser.add_argument("--table", action="store_true", help="all policies at all capacities")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds (42, 24, 32, 40, 62)")
    parser.add_argument("--policies", nargs="*", help="only these")
    parser.add_argument("--capacities", nargs="*", type=int, default=list(CAPACITIES))
    parser.add_argument("--modes", nargs="*", choices=tuple(MODES), default=list(MODES))
    parser.add_argument("--json", help="write the figures here")
    asked = parser.parse_args(arguments)
    if not asked.table:
        parser.error("say --table")
    seeds: Iterable[int] = SEEDS[: asked.seeds]
    print_table(asked.policies, asked.capacities, asked.modes, tuple(seeds), asked.json)


if __name__ == "__main__":
    main()
