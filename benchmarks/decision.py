"""How long one allocation decision takes and how far it may be from the best, over seeded problems of several sizes.

    python benchmarks/decision.py --json benchmarks/results/decision.json

Each problem has S-shaped value curves, 1 to 3 options for each pipeline, replicas of 1 to 4 units and 50 to 90 % of
the capacity that would saturate every pipeline. It is solved anew, then disturbed (values and loads by 5 %, the
replicas that run are those just decided) and solved again with the prices it had: that is what every further turn
costs, and what `decision_ms` says. Time is processor time of one thread and the fastest of three runs of the same
problem, so that the percentiles are over problems and not over what else the machine did; the gap is to the bound that
comes with the answer, proven each time.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.running import write_json
from headgate.allocation.solver import Problem, Solution, solve

SIZES = ((10, 1), (10, 4), (100, 4), (500, 4), (1000, 4))
POINTS = 17
UNITS = np.array([1.0, 1.0, 2.0, 1.0])
SPEED = np.array([1.0, 2.0, 4.0, 0.5])


def make_problem(chance: np.random.Generator, pipelines: int, pools: int) -> Problem:
    """A problem whose pools hold 50 to 90 % of what saturates all pipelines; one pool holds 3.2 replicas for each."""
    peak = chance.lognormal(0.0, 0.6, pipelines) * 4.0
    loads = peak[:, None] * 1.25 * np.linspace(0.0, 1.0, POINTS)
    steep = chance.uniform(4.0, 14.0, pipelines) / peak
    shape = 1.0 / (1.0 + np.exp(-steep[:, None] * (loads - (chance.uniform(0.35, 0.7, pipelines) * peak)[:, None])))
    weight = chance.lognormal(0.0, 0.5, pipelines)
    values = weight[:, None] * (shape - shape[:, :1]) / (shape[:, -1:] - shape[:, :1])
    pairs = [
        (i, pool)
        for i in range(pipelines)
        for pool in chance.choice(pools, min(pools, chance.integers(1, 4)), replace=False)
    ]
    pipeline, pool = np.array(pairs).T
    several = chance.choice([1.0, 1.0, 2.0], len(pairs)) if pools > 1 else np.ones(len(pairs))
    units = UNITS[pool] * several
    speed = SPEED[pool] * several**0.9 * (chance.uniform(0.8, 1.2, len(pairs)) if pools > 1 else 1.0)
    needed = peak[pipeline] / speed / np.bincount(pipeline)[pipeline]
    fill = chance.uniform(0.5, 0.9)
    capacity = np.floor(fill * np.bincount(pool, needed * units, pools)) if pools > 1 else np.array([3.2 * pipelines])
    start = chance.uniform(0.02, 0.08, len(pairs))
    return Problem(
        capacity=capacity,
        pipeline=pipeline,
        pool=pool,
        units=units,
        speed=speed,
        cost=0.02 * chance.uniform(0.5, 1.5, len(pairs)) * units,
        now=np.floor(needed * fill * chance.uniform(0.3, 1.5, len(pairs))),
        start_cost=start,
        stop_cost=0.3 * start,
        loads=loads,
        values=values,
        floor=chance.integers(0, 2, pipelines),
        cap=np.full(pipelines, 16 if pools > 1 else 32),
        rank=np.zeros(pipelines),
    )


def disturb(problem: Problem, solution: Solution, chance: np.random.Generator) -> Problem:
    """The next turn's problem: a little later, with the last decision carried out."""
    values = problem.values * np.exp(chance.normal(0.0, 0.05, problem.pipelines))[:, None]
    loads = problem.loads * np.exp(chance.normal(0.0, 0.05, problem.pipelines))[:, None]
    return replace(problem, values=values, loads=loads, now=solution.counts)


def timed(problem: Problem, prices: np.ndarray | None, repeats: int) -> tuple[Solution, float]:
    """The solution and the milliseconds of this thread's processor time it took, the least of `repeats`."""
    least = np.inf
    for _ in range(repeats):
        begin = time.thread_time()
        solution = solve(problem, prices=prices)
        least = min(least, (time.thread_time() - begin) * 1e3)
    return solution, least


def measure(pipelines: int, pools: int, problems: int, turns: int, repeats: int) -> dict[str, np.ndarray]:
    """Milliseconds of first and further decisions, and the gaps of the further ones."""
    cold, warm, gaps = [], [], []
    for seed in range(problems):
        chance = np.random.default_rng((pipelines, pools, seed))
        problem = make_problem(chance, pipelines, pools)
        solution, ms = timed(problem, None, repeats)
        cold.append(ms)
        for _ in range(turns):
            problem = disturb(problem, solution, chance)
            solution, ms = timed(problem, solution.prices, repeats)
            warm.append(ms)
            gaps.append(solution.gap)
    return {"cold": np.array(cold), "warm": np.array(warm), "gap": np.array(gaps)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json")
    parser.add_argument("--problems", type=int, default=40, help="seeded problems of each size")
    parser.add_argument("--turns", type=int, default=5, help="disturbed turns of each")
    parser.add_argument("--repeats", type=int, default=3, help="times each is solved; the fastest counts")
    arguments = parser.parse_args()
    measure(10, 4, 2, 2, 1)
    result: dict[str, object] = {"problems": arguments.problems, "turns": arguments.turns, "repeats": arguments.repeats}
    print("pipelines pools     ms p50     p99   cold p50     p99     gap p50     p99")
    for pipelines, pools in SIZES:
        found = measure(pipelines, pools, arguments.problems, arguments.turns, arguments.repeats)
        middle = {name: float(np.percentile(row, 50)) for name, row in found.items()}
        high = {name: float(np.percentile(row, 99)) for name, row in found.items()}
        print(
            f"{pipelines:9} {pools:5} {middle['warm']:10.2f} {high['warm']:7.2f} {middle['cold']:10.2f}"
            f" {high['cold']:7.2f} {100 * middle['gap']:10.3f}% {100 * high['gap']:6.3f}%",
            flush=True,
        )
        name = f"_{pipelines}" + ("_one_pool" if pools == 1 else "")
        figures = {
            "decision_ms_p50": middle["warm"],
            "decision_ms_p99": high["warm"],
            "decision_cold_ms_p99": high["cold"],
            "gap_to_bound_p50": middle["gap"],
            "gap_to_bound_p99": high["gap"],
        }
        result |= {key + name: value for key, value in figures.items()}
        if (pipelines, pools) == (500, 4):
            result |= {key: figures[key] for key in ("decision_ms_p99", "gap_to_bound_p99")}
    write_json(arguments.json, result)


if __name__ == "__main__":
    main()
