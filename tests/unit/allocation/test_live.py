"""The live lane without a house: its cases, its watch on the budget, its figures."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from benchmarks.lanes import live
from benchmarks.lanes.live_cases import CASES, CORES, Case, fixed, nominal_speeds
from benchmarks.lanes.live_house import BudgetWatch, Measured, list_room

from headgate.config import parse_settings
from headgate.evaluation.static_split import list_splits
from headgate.workers.proc import read_stat

BY_NAME = {case.name: case for case in CASES}


def speeds(case: Case) -> dict[str, Any]:
    nominal = nominal_speeds()
    return {name: nominal[kind] for name, kind in case.kinds.items()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_policies_differ_in_bounds_alone(case: Case) -> None:
    split = dict.fromkeys(case.models, 1)
    moving = parse_settings(case.configuration("/s", lambda _: {"cap": case.places}))
    static = parse_settings(case.configuration("/s", fixed(split)))
    assert static.model_copy(update={"pipelines": moving.pipelines}) == moving
    for name, pipeline in static.pipelines.items():
        free = moving.pipelines[name]
        assert (pipeline.floor, pipeline.cap, free.floor, free.cap) == (1, 1, 0, case.places)
        assert pipeline.model_copy(update={"floor": 0, "cap": case.places}) == free


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_load_goes_from_one_to_another_and_the_opponent_is_one_of_all_splits(case: Case) -> None:
    phases, arrivals = case.plan(speeds(case), 40.0, seed=3)
    assert tuple(phase.hot for phase in phases) == case.order
    assert {one.pipeline for one in arrivals} == set(case.models)
    splits = list_splits(*list_room(case, dict.fromkeys(case.models, 40 * 1024 * 1024)))
    assert len({tuple(sorted(one.items())) for one in splits}) == len(splits) > 1
    assert max(one[case.order[0]] for one in splits) == case.places


def test_at_most_half_of_the_scarce_models_fit() -> None:
    case = BY_NAME["scarce"]
    splits = list_splits(*list_room(case, dict.fromkeys(case.models, 43 * 1024 * 1024)))
    assert {sum(split.values()) for split in splits} == {case.places}
    assert case.places <= len(case.models) / 2


def test_everyone_resident_fits_and_has_nearly_the_same_niceness() -> None:
    from headgate.workers.spawn import nice_of

    case = BY_NAME["three"]
    resident = parse_settings(case.configuration("/s", lambda _: {"cap": CORES}, resident=True))
    usual = parse_settings(case.configuration("/s", lambda _: {"cap": CORES}))
    assert sum(model.cores for model in resident.models.values()) <= 1.0  # on each core one of each
    for name, model in usual.models.items():
        assert abs(nice_of(model.cores) - nice_of(resident.models[name].cores)) <= 1


def record(run: Path, name: str, *, core: int, share: float, memory_bytes: int = 10) -> None:
    stat = read_stat(os.getpid())
    assert stat is not None
    facts = {
        "pid": stat.pid,
        "started_ticks": stat.started_ticks,
        "placement": {"cores": [core], "share": share},
        "labels": {"member": json.dumps({"memory_bytes": memory_bytes})},
    }
    (run / f"replica-{name}.json").write_text(json.dumps(facts))


def test_the_watch_sees_a_crowded_core_and_too_much_memory(tmp_path: Path) -> None:
    watch = BudgetWatch(run=tmp_path, memory_bytes=35)
    record(tmp_path, "a", core=0, share=0.55)
    record(tmp_path, "b", core=1, share=0.55)
    assert not watch.look()
    record(tmp_path, "c", core=1, share=0.45)
    assert not watch.look()
    record(tmp_path, "d", core=0, share=0.1)
    assert watch.look()  # 40 of 35 bytes
    (tmp_path / "replica-a.json").unlink()
    assert not watch.look()
    record(tmp_path, "e", core=1, share=0.01, memory_bytes=0)
    assert watch.look()  # 1.01 of core 1


def test_the_watch_counts_only_processes_that_live(tmp_path: Path) -> None:
    watch = BudgetWatch(run=tmp_path, memory_bytes=None)
    record(tmp_path, "a", core=0, share=0.6)
    record(tmp_path, "b", core=0, share=0.6)
    assert watch.look()
    path = tmp_path / "replica-b.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"started_ticks": 1}))
    assert not BudgetWatch(run=tmp_path, memory_bytes=None).look()


def test_the_watch_looks_while_it_is_open(tmp_path: Path) -> None:
    with BudgetWatch(run=tmp_path, memory_bytes=None) as watch:
        while watch.looks < 2:
            pass
    assert watch.over == 0


def measured(**more: Any) -> Measured:
    plain: dict[str, Any] = {
        "requests": 100, "late": 10, "lost": 0, "dropped": 0, "p95_ms": 100.0, "on_time_per_s": 9.0,
        "moves": 3, "looks": 50, "over": 0,
    }  # fmt: skip
    return Measured(**(plain | more))


def test_the_best_static_split_counts_for_each_figure_and_what_is_over_budget_is_summed() -> None:
    static = [measured(p95_ms=50.0, on_time_per_s=4.0), measured(p95_ms=400.0, on_time_per_s=6.0)]
    told = live.tell_case(BY_NAME["units"], {"headgate": [measured(over=2, dropped=1)], "static": static})
    assert told["live_units_vs_static_p95"] == 2.0
    assert told["live_units_vs_static_goodput"] == 1.5
    other = live.tell_case(BY_NAME["two"], {"headgate": [measured(over=1)], "unpinned": [measured(p95_ms=25.0)]})
    lane = live.sum_up(told | other)
    assert lane["live_vs_static_goodput"] == 1.5
    assert lane["live_vs_unpinned_p95"] == 4.0
    assert (lane["live_over_budget"], lane["live_dropped"]) == (3, 1)
