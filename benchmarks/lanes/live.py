"""The live lane: the product on this machine, beside whoever else could share its cores.

Every policy gets the same requests at the same times. The static split is the best of all that fit, found by a replay
that knows everything that will come; in the full form the best two are run and the best of them counts, for each
figure its own. The autoscalers see one pipeline each. `unpinned` has every model resident on every core and leaves the
rest to the kernel; timed units only sleep, so that they have no such rival. A lost request counts in p95 as one that
took all of its client's patience.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.lanes import live_pools, live_wake
from benchmarks.lanes.live_cases import CASES, CORES, Case, model_speed, nominal_speeds, unit_speed
from benchmarks.lanes.live_house import POLICIES, Measured, list_room, measure, open_case, sum_up_run
from benchmarks.lanes.live_virtual import REPLICA_BYTES, VirtualHouse
from headgate.app.demonstration import Opened, try_pipelines
from headgate.app.local_admin import LocalAdmin
from headgate.core.clock import SystemClock
from headgate.evaluation.burst import Arrival
from headgate.evaluation.samples import Sample
from headgate.evaluation.static_split import Speed, Split, list_splits, rank_splits, replay

_SEED = 1
_SPLITS_RUN = 2  # static splits that the full form tries for real, best by replay first
_VIRTUAL_S = 30.0


def figures(*, full: bool) -> dict[str, float]:
    """Measure and print every case, on virtual time only, or with real processes and all policies too."""
    measured: dict[str, float] = {}
    if not full:
        for case in CASES:
            print(case.title)
            measured |= run_virtual(case, seeds=2)
        return measured
    clock = SystemClock()
    busy = round(os.getloadavg()[0] / CORES, 2)
    print(f"{busy:g} processes wanted each core before: above a few tenths, only virtual time tells policies apart")
    measured["live_busy_before"] = busy
    speeds: dict[str, Speed] = {"unit": unit_speed()}
    for case in CASES:
        print(f"\n{case.title}", flush=True)
        print(
            f"{'':24} {'requests':>8} {'late':>6} {'lost':>6} {'p95 ms':>8} {'in time/s':>9} {'moves':>6} {'over':>6}"
        )
        measured |= tell_case(case, _run_case(case, speeds, clock)) | run_virtual(case, seeds=5)
    print("\nthree pipelines, two fast units and four slow ones; the cold ones get a tenth", flush=True)
    measured |= live_pools.figures()
    return measured | sum_up(measured) | live_wake.figures()


def _run_case(case: Case, speeds: dict[str, Speed], clock: SystemClock) -> dict[str, list[Measured]]:
    """What each policy made of the case: one run, or one for each static split that was tried."""
    folder = Path(tempfile.mkdtemp(prefix="hg-live-"))
    runs: dict[str, list[Measured]] = {}
    try:
        with open_case(case, folder, clock) as opened:
            memory_bytes = asyncio.run(_learn(opened, case, speeds, clock))
            room = list_room(case, memory_bytes)
            mine = {name: speeds[kind] for name, kind in case.kinds.items()}
            load = case.plan(mine, case.seconds, _SEED)
            ranked = [split for _, split in rank_splits(list_splits(*room), load[1], mine)]
            for policy in POLICIES:
                if policy == "unpinned" and (case.timed or case.memory):
                    continue  # what sleeps shares no core; and where memory is short, not everything is resident
                splits = ranked[:_SPLITS_RUN] if policy == "static" else ranked[:1]
                for split in splits:
                    one = asyncio.run(measure(opened, case, policy, load, clock, split=split, room=room, seed=_SEED))
                    runs.setdefault(policy, []).append(one)
                    _print_row(policy, split if policy == "static" else None, one)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return runs


async def _learn(opened: Opened, case: Case, speeds: dict[str, Speed], clock: SystemClock) -> dict[str, int]:
    """Bytes of a replica of each pipeline where memory is limited (else 0); `speeds` gets what it does not know yet."""
    by_kind = dict.fromkeys(case.kinds.values(), 0)
    for name, kind in case.kinds.items():
        if by_kind[kind] or (kind in speeds and not case.memory):
            continue
        trial = (await try_pipelines(opened, clock, names=(name,)))[name]
        speeds.setdefault(kind, model_speed(trial.requests_per_s / trial.replicas))
        async with LocalAdmin(opened.places, clock) as admin:
            status = await admin.ask("GET", "/admin/status")
        by_kind[kind] = next(one["memory_bytes"] for one in status["replicas"] if one["pipeline"] == name)
    return {name: by_kind[kind] for name, kind in case.kinds.items()}


def run_virtual(case: Case, seeds: int) -> dict[str, float]:
    """The case once more on virtual time, where nothing else uses the machine; the requests of all seeds together.

    `pooled` is what no policy reaches: one queue for all units, that are anybody's at once.
    """
    speeds = nominal_speeds()
    mine = {name: speeds[kind] for name, kind in case.kinds.items()}
    splits = list_splits(*list_room(case, dict.fromkeys(case.models, REPLICA_BYTES)))
    runs: dict[str, list[Measured]] = {"headgate": [], "static": []}
    pooled = 0
    unit = mine[case.order[0]]
    for seed in range(1, seeds + 1):
        arrivals = case.plan(mine, _VIRTUAL_S, seed)[1]
        best = rank_splits(splits, arrivals, mine)[0][1]
        runs["headgate"].append(_run_virtually(case, None, arrivals, mine))
        runs["static"].append(_run_virtually(case, best, arrivals, mine))
        everyone = [replace(one, pipeline="all") for one in arrivals]
        pooled += replay(everyone, "all", case.places, unit).late
    requests = sum(one.requests for one in runs["static"])
    missed = {name: sum(one.late + one.lost for one in tried) for name, tried in runs.items()}
    missed |= {"pooled": pooled} if case.timed else {}
    print(
        f"{'on virtual time':24} {requests:8} late or lost: {', '.join(f'{k} {n}' for k, n in missed.items())}",
        flush=True,
    )
    goodput = {name: sum(one.on_time_per_s for one in tried) for name, tried in runs.items()}
    key = f"live_virtual_{case.name}"
    return {f"{key}_{name}_late_part": round(count / requests, 4) for name, count in missed.items()} | {
        f"{key}_vs_static_goodput": round(goodput["headgate"] / max(goodput["static"], 1e-9), 4),
        f"{key}_over_budget": sum(one.over for one in runs["headgate"]),
    }


def _run_virtually(
    case: Case, split: Split | None, arrivals: Sequence[Arrival], speeds: Mapping[str, Speed]
) -> Measured:
    house = VirtualHouse(case, split=split)
    samples: list[Sample] = asyncio.run(house.run(arrivals, speeds))
    moves = sum(house.reconciler.moves[kind] for kind in ("start", "stop", "rest", "wake"))
    return sum_up_run(samples, _VIRTUAL_S, moves=moves, looks=house.looks, over=house.over)


def _print_row(policy: str, split: Split | None, one: Measured) -> None:
    name = policy if split is None else f"{policy} {' '.join(str(count) for count in split.values())}"
    print(
        f"{name:24} {one.requests:8} {one.late:6} {one.lost:6} {one.p95_ms:8.0f} {one.on_time_per_s:9.1f}"
        f" {one.moves:6} {one.over:3}/{one.looks}",
        flush=True,
    )


def tell_case(case: Case, runs: Mapping[str, Sequence[Measured]]) -> dict[str, float]:
    """The case's figures: of each policy, and Headgate's p95 and goodput as ratios to those of the others."""
    told: dict[str, float] = {}
    key = f"live_{case.name}"
    for policy, tried in runs.items():
        told |= {
            f"{key}_{policy}_p95_ms": round(min(one.p95_ms for one in tried), 1),
            f"{key}_{policy}_goodput_per_s": round(max(one.on_time_per_s for one in tried), 3),
            f"{key}_{policy}_late": min(one.late for one in tried),
            f"{key}_{policy}_lost": min(one.lost for one in tried),
        }
    for policy in runs:
        if policy != "headgate":
            p95 = told[f"{key}_headgate_p95_ms"] / max(told[f"{key}_{policy}_p95_ms"], 1e-9)
            goodput = told[f"{key}_headgate_goodput_per_s"] / max(told[f"{key}_{policy}_goodput_per_s"], 1e-9)
            told |= {f"{key}_vs_{policy}_p95": round(p95, 4), f"{key}_vs_{policy}_goodput": round(goodput, 4)}
    (moving,) = runs["headgate"]
    every = [one for tried in runs.values() for one in tried]
    return told | {
        f"{key}_looks": sum(one.looks for one in every),
        f"{key}_over_budget": moving.over,
        f"{key}_dropped": moving.dropped,
        f"{key}_moves": moving.moves,
    }


def sum_up(measured: Mapping[str, float]) -> dict[str, float]:
    """The lane's own figures: beside a split on timed units, where no kernel helps, and beside the kernel on cores."""
    names = {
        "live_vs_static_p95": "live_units_vs_static_p95",
        "live_vs_static_goodput": "live_units_vs_static_goodput",
        "live_vs_autoscalers_goodput": "live_units_vs_autoscalers_goodput",
        "live_vs_unpinned_p95": "live_two_vs_unpinned_p95",
        "live_scarce_vs_static_goodput": "live_scarce_vs_static_goodput",
    }
    told = {name: measured[source] for name, source in names.items() if source in measured}
    for name in ("over_budget", "dropped"):
        told[f"live_{name}"] = sum(value for key, value in measured.items() if key.endswith(f"_{name}"))
    return told
