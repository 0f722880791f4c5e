"""What is replayed: per-minute counts of public traces, and the requests drawn from them.

Knows nothing of policies. Data lie in the folder that `HEADGATE_DATA` names (by default `shared/data` beside the
repository) and are not part of it.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np

from headgate.allocation.arrays import Floats, Ints
from headgate.allocation.simulator.world import Requests

ROOT = Path(__file__).resolve().parents[2]
MINUTE_S = 60.0

WORK_LEAST_S, WORK_SCALE_S, WORK_SHAPE = 0.0793016, 0.0685808, 0.422471
"""Seconds of work of one request: least + scale * exp(shape * z), z standard normal; 154 ms on average.

Source: github.com/beomyeol/faro, experiments/top9_twitter_1_1600.../job_latency_specs.yaml (ResNet34).
"""


def data_path(name: str) -> Path:
    """The path of a data file, for example 'traces/faro_10jobs_360min.csv'. Raises SystemExit when it is missing."""
    folder = Path(os.environ.get("HEADGATE_DATA", ROOT.parent / "shared" / "data"))
    if not (path := folder / name).exists():
        raise SystemExit(f"{path} is missing. Set HEADGATE_DATA to the folder that has {name}.")
    return path


def load_counts() -> Ints:
    """Requests per minute of Faro's ten jobs ([minute, job]), six hours."""
    return np.loadtxt(data_path("traces/faro_10jobs_360min.csv"), delimiter=",", skiprows=1).astype(np.int64)


def load_published() -> dict[tuple[str, int], tuple[float, float]]:
    """Faro's own simulator: (policy, replicas) -> (SLO violation rate, lost utility)."""
    with data_path("perf/faro_published_results_10jobs.csv").open(newline="", encoding="utf-8") as file:
        return {
            (row["policy"], int(row["replicas"])): (float(row["slo_viol"]), float(row["lost_util"]))
            for row in csv.DictReader(file)
            if row["setup"] == "sim10"
        }


def draw_requests(counts: Ints, seed: int) -> list[Requests]:
    """The requests of each job (counts: [minute, job]): the first of a minute at its start, exponential gaps between.

    A minute with n requests has gaps of 60/n s on average; the last may come in the next minute.
    Why n gaps and this order: a generator of the same seed then gives the very arrival times of Faro's simulator.
    Source: github.com/beomyeol/faro, src/simulation/load_generator.py (JSON, poisson).
    """
    chance = np.random.default_rng(seed)
    jobs = counts.shape[1]
    at: list[list[Floats]] = [[] for _ in range(jobs)]
    for minute, row in enumerate(counts):
        for job in np.flatnonzero(row):
            gaps = chance.exponential(MINUTE_S / row[job], row[job])
            at[job].append(MINUTE_S * minute + np.concatenate([[0.0], np.cumsum(gaps)[:-1]]))
    work = np.random.default_rng([seed, 1])
    requests: list[Requests] = []
    for parts in at:
        moments = np.sort(np.concatenate(parts)) if parts else np.zeros(0)
        z = work.standard_normal(len(moments))
        requests.append(Requests(at=moments, work=WORK_LEAST_S + WORK_SCALE_S * np.exp(WORK_SHAPE * z)))
    return requests
