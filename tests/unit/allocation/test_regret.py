"""Lane F's figures: which part of the way is gone, and from whose Faro."""

import json

import pytest
from benchmarks.lanes.regret import POLICIES, close, key_of, main


def told(mode: str, capacity: int, **violations: float) -> dict[str, float]:
    return {key_of(name, capacity, mode): value for name, value in violations.items()}


def test_the_way_goes_from_the_best_faro_to_the_clairvoyant_and_the_least_part_counts():
    found = told("cold", 32, headgate=0.02, faro_sum=0.05, faro_fair_sum=0.03, clairvoyant=0.01)
    found |= told("cold", 20, headgate=0.31, faro_sum=0.40, faro_fair_sum=0.45, clairvoyant=0.30)
    assert close(found) == {
        "lane_f_regret_cold_20": pytest.approx(0.9),
        "lane_f_regret_cold_32": pytest.approx(0.5),
        "lane_f_regret_cold_min": pytest.approx(0.5),
    }


def test_ends_that_were_not_run_again_are_named_as_such_and_without_them_there_is_no_figure():
    found = told("warm", 32, headgate=0.02) | told("warm", 36, headgate=0.02)
    committed = told("warm", 32, headgate=0.5, faro_sum=0.05, faro_fair_sum=0.03, clairvoyant=0.01)
    assert close(found, committed) == {
        "lane_f_regret_warm_32_ends_as_committed": pytest.approx(0.5),
        "lane_f_regret_warm_min": pytest.approx(0.5),
    }
    assert close(found) == {}


def test_where_the_clairvoyant_is_no_better_there_is_no_way_to_go():
    assert close(told("cold", 60, headgate=0.0, faro_sum=0.0, faro_fair_sum=0.0, clairvoyant=0.0)) == {}


def test_a_part_is_added_to_what_is_there_and_the_way_is_reckoned_anew(tmp_path, monkeypatch):
    late = {"headgate": 0.02, "faro_sum": 0.05, "faro_fair_sum": 0.03, "clairvoyant": 0.01}

    def measured(make, capacity, seed, mode):
        name = next(name for name, known in POLICIES.items() if known is make)
        return {"violations": late[name], "lost_utility": 1.0, "moves_per_hour": 0.0}

    monkeypatch.setattr("benchmarks.lanes.regret.measure", measured)
    path = tmp_path / "f.json"
    part = ["--json", str(path), "--capacities", "32", "--modes", "cold", "--policies"]
    main([*part, "headgate", "faro_sum"])
    assert "lane_f_regret_cold_32" not in json.loads(path.read_text())
    main([*part, "clairvoyant"])
    assert "lane_f_regret_cold_32" not in json.loads(path.read_text()), "one of the two Faros is missing"
    main([*part, "faro_fair_sum"])
    found = json.loads(path.read_text())
    assert found["lane_f_regret_cold_min"] == pytest.approx(0.5) and found["lane_f_32_cold_faro_sum"] == 0.05
