"""The live lane across pools: pipelines that may run on fast and on slow devices, real processes, one load for all.

The load goes from one pipeline to the next. Headgate may give each of them replicas in both pools. Its rivals have the
same devices: the best static split of both pools (found by a replay that knows everything that will come), and houses
that move capacity in one pool alone. Timed units of the fake engine stand for devices.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.lanes.live_cases import LATE_AFTER_S, PATIENCE_S
from benchmarks.lanes.live_house import BudgetWatch, Measured, sum_up_run
from headgate.app.demonstration import close_house, open_house, reload_house, run_load
from headgate.core.chance import SeededChance
from headgate.core.clock import SystemClock
from headgate.evaluation.burst import Arrival, Phase, plan_arrivals, plan_phases
from headgate.evaluation.static_split import Outcome
from headgate.workers.hardware import load_hardware

_BUSY = (
    0.5  # of all that both pools can do, asked of the hot pipeline on average; its bursts ask for 1.75 times as much
)
_COLD = 0.1
_SECONDS = 30.0
_SEED = 1
_ANSWER_TOKENS = 4

Counts = tuple[int, ...]
"""Replicas of one pipeline by pool, in the order of the kit's pools."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """What one replica is in one pool: settings of the pool and of the model, how many fit, and what one does.

    `devices` are numbers of cores or GPUs, each replica has `each` of them (a part of one below 1).
    """

    pool: Mapping[str, Any]
    model: Mapping[str, Any]
    devices: tuple[int, ...]
    each: float
    requests_per_s: float

    @property
    def slots(self) -> int:
        """Requests at once."""
        return self.model["slots"]

    @property
    def places(self) -> int:
        """Replicas that fit."""
        return int(len(self.devices) / self.each + 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """Names of pipelines, and a unit by pool, the fast one first; `engines` are settings of the engines."""

    name: str
    pipelines: tuple[str, ...]
    units: Mapping[str, Unit]
    engines: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def requests_per_s(self) -> float:
        """What all units do together."""
        return sum(unit.places * unit.requests_per_s for unit in self.units.values())


def timed_kit() -> Kit:
    """Two units that take a tenth of a second, four that take 0.4 s."""
    cores = load_hardware().core_ids

    def unit(core: int, places: int, tokens_per_s: float) -> Unit:
        settings = {"answer_tokens": _ANSWER_TOKENS, "tokens_per_s": tokens_per_s}
        return Unit(
            pool={},
            model={"source": "fake:", "slots": 1, "settings": settings},
            devices=(core,),
            each=1.0 / places,
            requests_per_s=tokens_per_s / _ANSWER_TOKENS,
        )

    units = {"fast": unit(cores[0], 2, 40.0), "slow": unit(cores[-1], 4, 10.0)}
    return Kit(name="pools", pipelines=("mail", "orders", "search"), units=units)


def figures(kit: Kit | None = None) -> dict[str, float]:
    """Measure and print what every policy makes of the same load."""
    kit = kit or timed_kit()
    hot_per_s = dict.fromkeys(kit.pipelines, _BUSY * kit.requests_per_s)
    phases = plan_phases(kit.pipelines, seconds=_SECONDS, hot_per_s=hot_per_s, cold=_COLD)
    arrivals = plan_arrivals(phases, SeededChance(_SEED))
    split = best_split(kit, arrivals)
    print(f"the best static split: {split}")
    print(f"{'':24} {'requests':>8} {'late':>6} {'lost':>6} {'p95 ms':>8} {'in time/s':>9} {'moves':>6} {'over':>6}")
    runs: dict[str, Measured] = {}
    for policy in ("headgate", "static", *kit.units):
        one = runs[policy] = _run(kit, policy, split if policy == "static" else None, phases, arrivals)
        print(
            f"{policy if policy in ('headgate', 'static') else policy + ' pool alone':24} {one.requests:8}"
            f" {one.late:6} {one.lost:6} {one.p95_ms:8.0f} {one.on_time_per_s:9.1f} {one.moves:6}"
            f" {one.over:3}/{one.looks}",
            flush=True,
        )
    return _tell(kit, runs)


def configuration(kit: Kit, state: str, policy: str, split: Mapping[str, Counts] | None) -> str:
    """The headgate.yaml of a policy: "headgate" in all pools, a pool's name in that one alone, or a `split`."""
    pools: dict[str, Any] = {}
    models: dict[str, Any] = {}
    pipelines: dict[str, Any] = {}
    begun = dict.fromkeys(kit.units, 0)
    for name in kit.pipelines:
        mine: list[str] = []
        counts = split[name] if split else tuple(unit.places for unit in kit.units.values())
        for (kind, unit), count in zip(kit.units.items(), counts, strict=True):
            if not count or (split is None and policy not in ("headgate", kind)):
                continue
            model = f"{name}-{kind}"
            mine.append(model)
            # Why a pool for each pipeline of a split: a floor says how many replicas, and only the pool says where.
            pool = kind if split is None else model
            devices, each = unit.devices, unit.each
            if split is not None and each >= 1:
                devices = devices[begun[kind] : begun[kind] + int(count * each)]
                begun[kind] += len(devices)
            elif split is not None:
                each = 1.0 / count
            pools[pool] = {**unit.pool, "cores": list(devices)}
            models[model] = {**unit.model, "pool": pool, "cores": each}
        bounds = {"floor": sum(counts), "cap": sum(counts)} if split else {"cap": sum(counts)}
        if mine:
            slo = {"first_token_ms": LATE_AFTER_S * 1e3}
            patience = {"queue": 4096, "idle_s": 4, "timeout_s": PATIENCE_S}
            pipelines[name] = {"model": mine, "slo": slo, **patience, **bounds}
    document = {"state": state, "gateway": {"port": 0, "drain_s": 10}, "engines": dict(kit.engines)}
    document |= {"pools": pools, "models": models, "pipelines": pipelines}
    return json.dumps(document, indent=1)  # which is YAML too, and writes out what is said twice


def best_split(kit: Kit, arrivals: Sequence[Arrival]) -> dict[str, Counts]:
    """The static split of all pools that a replay of `arrivals` likes best."""
    each = [list(_shares(unit.places, len(kit.pipelines))) for unit in kit.units.values()]
    splits = [dict(zip(kit.pipelines, zip(*chosen, strict=True), strict=True)) for chosen in product(*each)]
    known: dict[tuple[str, Counts], Outcome] = {}
    for split in splits:
        for name, counts in split.items():
            if (name, counts) not in known:
                known[name, counts] = _replay([one for one in arrivals if one.pipeline == name], kit, counts)
    return min(splits, key=lambda split: sum((known[one] for one in split.items()), Outcome()))


def _shares(count: int, among: int) -> Iterator[Counts]:
    """All ways to give out `count` replicas among so many pipelines."""
    if among == 1:
        yield (count,)
        return
    for mine in range(count + 1):
        for others in _shares(count - mine, among - 1):
            yield (mine, *others)


def _replay(arrivals: Sequence[Arrival], kit: Kit, counts: Counts) -> Outcome:
    """What a pipeline's arrivals come to: each takes the slot on which it ends first."""
    if not sum(counts):
        return Outcome(lost=len(arrivals))
    free: list[tuple[float, list[float]]] = []  # by pool: seconds of a request, and when its slots are free
    for unit, count in zip(kit.units.values(), counts, strict=True):
        if count:
            free.append((unit.slots / unit.requests_per_s, [0.0] * (count * unit.slots)))
    outcome = Outcome()
    for one in arrivals:
        takes_s, slots = min(free, key=lambda pool: max(one.at_s, pool[1][0]) + pool[0])
        waited_s = max(0.0, slots[0] - one.at_s)
        heapq.heapreplace(slots, one.at_s + waited_s + takes_s)
        outcome += Outcome(late=int(waited_s > LATE_AFTER_S), waited_s=waited_s)
    return outcome


def _run(
    kit: Kit, policy: str, split: Mapping[str, Counts] | None, phases: tuple[Phase, ...], arrivals: tuple[Arrival, ...]
) -> Measured:
    clock = SystemClock()
    folder = Path(tempfile.mkdtemp(prefix="hg-pools-"))
    config = folder / "headgate.yaml"
    config.write_text(configuration(kit, str(folder / "state"), policy, split))
    held = {name: sum(counts) for name, counts in split.items() if sum(counts)} if split else None
    try:
        opened = open_house(config, clock)
        asyncio.run(reload_house(opened, clock, held))
        with BudgetWatch(run=opened.places.run, memory_bytes=None) as watch:
            told = asyncio.run(run_load(opened, phases, arrivals, clock, seed=_SEED, show=lambda _: None))
    finally:
        close_house(config, clock)
        shutil.rmtree(folder, ignore_errors=True)
    return sum_up_run(told.samples, _SECONDS, moves=told.moved(), looks=watch.looks, over=watch.over)


def _tell(kit: Kit, runs: Mapping[str, Measured]) -> dict[str, float]:
    key = f"live_{kit.name}"
    told: dict[str, float] = {}
    for policy, one in runs.items():
        told |= {
            f"{key}_{policy}_p95_ms": round(one.p95_ms, 1),
            f"{key}_{policy}_goodput_per_s": round(one.on_time_per_s, 3),
            f"{key}_{policy}_late": one.late,
            f"{key}_{policy}_lost": one.lost,
        }
    mine = runs["headgate"]
    for policy, one in runs.items():
        if policy != "headgate":
            told[f"{key}_vs_{policy}_goodput"] = round(mine.on_time_per_s / max(one.on_time_per_s, 1e-9), 4)
            told[f"{key}_vs_{policy}_p95"] = round(mine.p95_ms / max(one.p95_ms, 1e-9), 4)
    return told | {
        f"{key}_over_budget": mine.over,
        f"{key}_dropped": mine.dropped,
        f"{key}_moves": mine.moves,
        f"{key}_looks": mine.looks,
    }


if __name__ == "__main__":
    figures()
