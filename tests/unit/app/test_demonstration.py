"""The demo's configuration, load and opponent; no process is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from headgate.app import demonstration
from headgate.app.demonstration import (
    LATE_AFTER_S,
    ORDER,
    SHARES,
    Progress,
    Trial,
    choose_split,
    make_body,
    plan_load,
    summarise_load,
    write_configuration,
)
from headgate.config import load_settings
from headgate.evaluation.burst import Arrival
from headgate.evaluation.samples import Sample
from headgate.workers.hardware import HardwareFacts, load_hardware

TRIALS = {
    "ticket-extract": Trial(wake_s=0.2, requests_per_s=40.0, replicas=2),
    "ticket-summary": Trial(wake_s=0.2, requests_per_s=60.0, replicas=2),
    "ticket-category": Trial(wake_s=0.2, requests_per_s=800.0, replicas=2),
}


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> HardwareFacts:
    facts = load_hardware(core_ids=(0, 1))
    monkeypatch.setattr(demonstration, "load_hardware", lambda: facts)
    return facts


def test_a_split_is_floor_and_cap_and_nothing_else_differs(tmp_path: Path) -> None:
    moving = load_settings(write_configuration(tmp_path))
    split = dict(zip(SHARES, (1, 1, 2), strict=True))
    static = load_settings(write_configuration(tmp_path, split))
    for name, pipeline in static.pipelines.items():
        assert (pipeline.floor, pipeline.cap) == (split[name], split[name])
        assert pipeline.slo.first_token_ms == LATE_AFTER_S[name] * 1e3
        free = moving.pipelines[name]
        assert (free.floor, free.cap) == (0, 2)
        assert pipeline.model_copy(update={"floor": free.floor, "cap": free.cap}) == free
    assert static.model_copy(update={"pipelines": moving.pipelines}) == moving


def test_a_trial_counts_from_when_all_replicas_are_there() -> None:
    def ended(at_s: float) -> Sample:
        return Sample(number=0, pipeline="a", start_s=0.0, end_s=at_s)

    slow, fast = [ended(0.1 * n) for n in range(1, 7)], [ended(0.7 + 0.05 * n) for n in range(1, 41)]
    assert demonstration._steady_rate(slow + fast) == pytest.approx(20.0)
    assert demonstration._steady_rate([ended(0.5)]) == 2.0


def test_one_language_model_is_asked_at_a_time() -> None:
    phases, arrivals = plan_load(TRIALS, seconds=40, seed=1)
    assert tuple(phase.hot for phase in phases) == ORDER
    assert plan_load(TRIALS, seconds=40, seed=1)[1] == arrivals
    for phase in phases:
        asked = {one.pipeline for one in arrivals if phase.from_s <= one.at_s < phase.until_s}
        assert asked == {phase.hot, "ticket-category"}


def test_the_opponent_serves_everyone() -> None:
    split, of = choose_split(TRIALS, plan_load(TRIALS, seconds=40, seed=1)[1])
    assert of > 3
    assert (split["ticket-extract"], split["ticket-summary"]) == (1, 1)
    assert split["ticket-category"] >= 1


def test_the_opponent_leaves_out_who_is_never_asked() -> None:
    only = [Arrival(number=number, at_s=number / 35, pipeline="ticket-extract") for number in range(350)]
    split, _ = choose_split(TRIALS, only)
    assert split["ticket-extract"] == 2


def test_the_same_request_has_the_same_body_in_both_columns() -> None:
    arrival = Arrival(number=7, at_s=0.0, pipeline="ticket-extract")
    assert make_body(3)(arrival) == make_body(3)(arrival) != make_body(4)(arrival)


def test_a_load_is_summed_by_pipeline() -> None:
    progress = Progress(seconds=10, elapsed_s=10)
    for pipeline, first_s in (("ticket-extract", 0.1), ("ticket-extract", 0.6), ("ticket-summary", 0.7)):
        progress.samples.append(Sample(number=0, pipeline=pipeline, start_s=0.0, first_s=first_s, end_s=1.0))
    assert summarise_load(progress).late == 2
    assert summarise_load(progress, "ticket-extract").late == 1
