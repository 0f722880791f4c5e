"""How long one decision takes and how far it may be from the best, over seeded cases of several sizes.

    python benchmarks/decision.py --full --json benchmarks/results/decision.json

A decision is what a turn of the control loop decides: from the forecast quantiles of every pipeline to value curves to
replicas by option (`targets.choose_targets`); `solve` is the part of it that follows the curves. Cases come in two
kinds. *Forecast*: pipelines of 60 services with 1 to 3 options in pools of several kinds, whose mean demand is 50 to
90 % of what saturates the pools; each further turn, rates move by about 7 %, one pipeline in a hundred bursts or dies
down, and the replicas are those just decided. *Steep*: given S-shaped curves with start and stop costs and 50 to 90 %
of the capacity that would saturate every pipeline, disturbed by 5 %: harder for the solver, without forecasts.

Time is processor time of one thread and the least of three runs of the same turn, so that percentiles are over cases
and not over what else the machine did; where that changes within minutes, the median of five runs counts (`--full`).
The gap is to the bound that comes with every answer. Up to a hundred pipelines, where whole replicas matter most, the
answer is also compared with the bound of mixed-integer programming (`exact`).
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.running import write_json
from headgate.allocation.exact import solve_exact
from headgate.allocation.punctuality import Service
from headgate.allocation.solver import Problem, Solution, solve
from headgate.allocation.targets import Option, Want, build_problem, choose_targets

SIZES = ((10, 1), (10, 4), (100, 4), (500, 4), (1000, 4))
POINTS = 17
CAP = 16
SERVICES = 60
UNITS = np.array([1.0, 1.0, 2.0, 1.0])
SPEED = np.array([1.0, 2.0, 4.0, 0.5])
QUANTILES = np.array([-2.054, -1.282, -0.674, 0.0, 0.674, 1.282, 2.054])  # of a normal at forecast.PROBABILITIES
EXACT_S = 10.0
EXACT_MOST = 100
RUNS = 5  # of the case that counts, in the full form: this machine may be shared, and its speed changes


def make_services(chance: np.random.Generator) -> list[Service]:
    """Services from a fast classifier to a slow model, with slack of 1 to 8 times their mean."""
    services: list[Service] = []
    for _ in range(SERVICES):
        mean_s, slots = float(chance.lognormal(-1.0, 1.5)), int(chance.choice([1, 1, 2, 4, 8]))
        slack_s = mean_s * float(chance.uniform(1.0, 8.0))
        services.append(
            Service(
                mean_s=mean_s,
                variation=float(chance.uniform(0.1, 2.0)),
                slots=slots,
                slow=tuple(k**0.6 for k in range(1, slots + 1)),
                slack=((0.5, 0.7 * slack_s), (0.5, 1.3 * slack_s)),
            )
        )
    return services


def place_options(chance: np.random.Generator, pools: int) -> list[Option]:
    """One to three ways to run a pipeline, each in another pool; a single pool has replicas of one unit."""
    options: list[Option] = []
    for pool in chance.choice(pools, min(pools, chance.integers(1, 4)), replace=False):
        several = float(chance.choice([1.0, 1.0, 2.0])) if pools > 1 else 1.0
        speed = SPEED[pool] * several**0.9 * chance.uniform(0.8, 1.2) if pools > 1 else 1.0
        options.append(Option(pool=int(pool), units=float(UNITS[pool] * several), speed=float(speed)))
    return options


@dataclass
class Turns:
    """Wants as they go on, turn by turn; the pools hold what saturates at 1 / `fill` of the demand at the start."""

    wants: list[Want]
    capacity: np.ndarray
    spread: np.ndarray = field(default_factory=lambda: np.zeros(0))
    rates: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def start(cls, chance: np.random.Generator, pipelines: int, pools: int) -> Turns:
        """A seeded case. One pipeline in ten sleeps."""
        services = make_services(chance)
        demand = np.zeros(pools)
        wants: list[Want] = []
        rates = np.zeros(pipelines)
        for number in range(pipelines):
            service = services[chance.integers(len(services))]
            busy = float(chance.lognormal(0.3, 0.8)) if chance.random() > 0.1 else 0.0
            rates[number] = busy * service.replica_rate
            options = place_options(chance, pools)
            for place, option in enumerate(options):
                there = busy / option.speed / len(options)
                demand[option.pool] += there * option.units
                options[place] = replace(option, now=int(there * chance.uniform(0.5, 1.8)))
            near_s = float(chance.choice([10.0, 20.0, 40.0]))
            wants.append(
                Want(
                    service=service,
                    near=(),
                    far=(),
                    near_s=near_s,
                    far_s=near_s + 5.0,
                    options=tuple(options),
                    weight=float(chance.choice([0.5, 1.0, 1.0, 1.0, 2.0, 4.0])),
                    floor=int(chance.random() < 0.2),
                    cap=CAP,
                )
            )
        fill = chance.uniform(0.5, 0.9)
        case = cls(wants, np.ceil(demand / fill), chance.uniform(0.05, 0.4, pipelines), rates)
        case._forecast(chance)
        return case

    def go_on(self, solution: Solution, chance: np.random.Generator) -> None:
        """The next turn: `solution` was carried out, rates moved a little, some much."""
        moved = chance.normal(0.0, 0.07, len(self.rates))
        burst = chance.random(len(self.rates)) < 0.01
        self.rates = self.rates * np.exp(np.where(burst, chance.normal(0.0, 1.5, len(self.rates)), moved))
        counts = iter(solution.counts.tolist())
        self.wants = [
            replace(want, options=tuple(replace(option, now=next(counts)) for option in want.options))
            for want in self.wants
        ]
        self._forecast(chance)

    def _forecast(self, chance: np.random.Generator) -> None:
        """Quantiles around the rates, wider for the far stretch; some pipelines have a backlog."""
        near = self.rates[:, None] * np.exp(self.spread[:, None] * QUANTILES)
        drift = np.exp(chance.normal(0.0, 0.1, len(self.rates)))[:, None]
        far = self.rates[:, None] * drift * np.exp(1.5 * self.spread[:, None] * QUANTILES)
        waiting = np.where(chance.random(len(self.rates)) < 0.05, 10.0 * self.rates, 0.0)
        self.wants = [
            replace(want, near=tuple(soon), far=tuple(later), inside=inside)
            for want, soon, later, inside in zip(self.wants, near.tolist(), far.tolist(), waiting.tolist(), strict=True)
        ]


def make_problem(chance: np.random.Generator, pipelines: int, pools: int) -> Problem:
    """A steep case: pools hold 50 to 90 % of what saturates all pipelines; one pool holds 3.2 replicas for each."""
    peak = chance.lognormal(0.0, 0.6, pipelines) * 4.0
    loads = peak[:, None] * 1.25 * np.linspace(0.0, 1.0, POINTS)
    steep = chance.uniform(4.0, 14.0, pipelines) / peak
    shape = 1.0 / (1.0 + np.exp(-steep[:, None] * (loads - (chance.uniform(0.35, 0.7, pipelines) * peak)[:, None])))
    weight = chance.lognormal(0.0, 0.5, pipelines)
    values = weight[:, None] * (shape - shape[:, :1]) / (shape[:, -1:] - shape[:, :1])
    told = [(number, option) for number in range(pipelines) for option in place_options(chance, pools)]
    pipeline = np.array([number for number, _ in told])
    pool = np.array([option.pool for _, option in told])
    units = np.array([option.units for _, option in told])
    speed = np.array([option.speed for _, option in told])
    needed = peak[pipeline] / speed / np.bincount(pipeline)[pipeline]
    fill = chance.uniform(0.5, 0.9)
    capacity = np.floor(fill * np.bincount(pool, needed * units, pools)) if pools > 1 else np.array([3.2 * pipelines])
    start = chance.uniform(0.02, 0.08, len(told))
    return Problem(
        capacity=capacity,
        pipeline=pipeline,
        pool=pool,
        units=units,
        speed=speed,
        cost=0.02 * chance.uniform(0.5, 1.5, len(told)) * units,
        now=np.floor(needed * fill * chance.uniform(0.3, 1.5, len(told))),
        start_cost=start,
        stop_cost=0.3 * start,
        loads=loads,
        values=values,
        floor=chance.integers(0, 2, pipelines),
        cap=np.full(pipelines, CAP if pools > 1 else 2 * CAP),
        rank=np.zeros(pipelines),
    )


def disturb(problem: Problem, solution: Solution, chance: np.random.Generator) -> Problem:
    """The next turn's problem: a little later, with the last decision carried out."""
    values = problem.values * np.exp(chance.normal(0.0, 0.05, problem.pipelines))[:, None]
    loads = problem.loads * np.exp(chance.normal(0.0, 0.05, problem.pipelines))[:, None]
    return replace(problem, values=values, loads=loads, now=solution.counts)


def timed(repeats: int, decide: Callable[..., Solution], *asked: Any, **more: Any) -> tuple[Solution, float]:
    """What `decide` returns and the milliseconds of this thread's processor time it took, the least of `repeats`."""
    least = np.inf
    for _ in range(repeats):
        begin = time.thread_time()
        solution = decide(*asked, **more)
        least = min(least, (time.thread_time() - begin) * 1e3)
    return solution, least


@dataclass
class Found:
    """What was measured of one size and kind: milliseconds and gaps (parts of the bound), a number for each turn."""

    cold: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    solve: list[float] = field(default_factory=list)
    gap: list[float] = field(default_factory=list)
    exact: list[float] = field(default_factory=list)

    def compare(self, problem: Problem, solution: Solution) -> None:
        """How far `solution` is below the bound of mixed-integer programming."""
        exact = solve_exact(problem, EXACT_S, solution.prices)
        self.exact.append(max(0.0, exact.bound - solution.value) / max(abs(exact.bound), 1e-9))

    def figures(self, kind: str, size: str) -> dict[str, float]:
        """The percentiles, by key."""
        named = {"decision": self.whole, "solve": self.solve, "cold": self.cold}
        result = {
            f"{kind}{name}_ms_p{part}{size}": float(np.percentile(row, part))
            for name, row in named.items()
            for part in (50, 99)
            if row
        }
        for name, row in (("gap_to_bound", self.gap), ("gap_to_exact", self.exact)):
            if row:
                result |= {f"{kind}{name}_p{part}{size}": float(np.percentile(row, part)) for part in (50, 99)}
        return result


def measure_forecast(pipelines: int, pools: int, cases: int, turns: int, repeats: int) -> Found:
    """Whole decisions: the first one of each case, and further ones with the prices of the one before."""
    found = Found()
    for seed in range(cases):
        chance = np.random.default_rng((pipelines, pools, seed, 2))
        case = Turns.start(chance, pipelines, pools)
        choose_targets(case.wants, case.capacity)  # tables are made once for each service
        solution, ms = timed(repeats, choose_targets, case.wants, case.capacity)
        found.cold.append(ms)
        for turn in range(turns):
            before = solution.prices
            case.go_on(solution, chance)
            solution, ms = timed(repeats, choose_targets, case.wants, case.capacity, before)
            found.whole.append(ms)
            found.gap.append(solution.gap)
            problem = build_problem(case.wants, case.capacity)
            found.solve.append(timed(repeats, solve, problem, prices=before)[1])
            if pipelines <= EXACT_MOST and not turn:
                found.compare(problem, solution)
    return found


def measure_steep(pipelines: int, pools: int, cases: int, turns: int, repeats: int) -> Found:
    """The solver alone on steep cases."""
    found = Found()
    for seed in range(cases):
        chance = np.random.default_rng((pipelines, pools, seed))
        problem = make_problem(chance, pipelines, pools)
        solution, ms = timed(repeats, solve, problem)
        found.cold.append(ms)
        for turn in range(turns):
            before = solution.prices
            problem = disturb(problem, solution, chance)
            solution, ms = timed(repeats, solve, problem, prices=before)
            found.solve.append(ms)
            found.gap.append(solution.gap)
            if pipelines <= EXACT_MOST and not turn:
                found.compare(problem, solution)
    return found


def show(kind: str, pipelines: int, pools: int, found: Found) -> None:
    """One line of the table."""

    def pair(row: list[float], scale: float = 1.0, digits: int = 2) -> str:
        return "".join(
            f"{scale * float(np.percentile(row, part)):9.{digits}f}" if row else 9 * " " for part in (50, 99)
        )

    print(
        f"{kind:9}{pipelines:9}{pools:6} {pair(found.whole)} {pair(found.solve)} {pair(found.cold)}"
        f" {pair(found.gap, 100, 3)} {pair(found.exact, 100, 3)}",
        flush=True,
    )


def figures(*, full: bool, cases: int | None = None, turns: int = 5, repeats: int = 3) -> dict[str, float]:
    """The table, printed, and its numbers: 500 pipelines and 4 pools, or all sizes."""
    number = cases or (40 if full else 8)
    measure_forecast(10, 4, 1, 1, 1)
    heads = ("decision, ms", "solve, ms", "first one, ms", "gap to bound, %", "gap to exact, %")
    print(25 * " " + "".join(f"{head:>19}" for head in heads))
    print("cases    pipelines pools " + len(heads) * "      p50      p99 ")
    result: dict[str, float] = {}
    for pipelines, pools in SIZES if full else ((500, 4),):
        size = f"_{pipelines}" + ("_one_pool" if pools == 1 else "")
        for kind, measure in (("", measure_forecast), ("steep_", measure_steep)):
            found = measure(pipelines, pools, number, turns, repeats)
            show("steep" if kind else "forecast", pipelines, pools, found)
            result |= found.figures(kind, size)
    at = "_500"
    result |= {key: result[key + at] for key in ("decision_ms_p99", "solve_ms_p99", "gap_to_bound_p99")}
    if full:
        again = [measure_forecast(500, 4, number, turns, repeats) for _ in range(RUNS - 1)]
        runs = sorted([result["decision_ms_p99"], *(float(np.percentile(one.whole, 99)) for one in again)])
        print(f"500 pipelines, 4 pools, p99 of {RUNS} runs: {', '.join(f'{one:.1f}' for one in runs)} ms")
        result |= {"decision_ms_p99": float(np.median(runs)), "decision_ms_p99_worst_run": runs[-1]}
    return result


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="write the result here")
    parser.add_argument("--full", action="store_true", help="all sizes")
    parser.add_argument("--cases", type=int, help="seeded cases of each size")
    parser.add_argument("--turns", type=int, default=5, help="further turns of each")
    parser.add_argument("--repeats", type=int, default=3, help="times each is decided; the fastest counts")
    asked = parser.parse_args()
    write_json(asked.json, figures(full=asked.full, cases=asked.cases, turns=asked.turns, repeats=asked.repeats))


if __name__ == "__main__":
    main()
