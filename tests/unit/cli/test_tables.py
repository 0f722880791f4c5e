"""Tables are made of whatever the admin API tells, also of the little that is known while things restart."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from headgate.cli.tables import status_tables

HOUSE: dict[str, Any] = {
    "stage": "running",
    "pid": 5,
    "started_at": 0.0,
    "version": "1",
    "url": "http://127.0.0.1:1",
    "state": "/s",
    "processes": [{"name": "node", "pid": 6, "ready": True, "restarts": 2, "last_exit": "exited with 1"}],
}


def show(told: dict[str, Any], width: int = 200) -> str:
    console = Console(width=width, record=True, file=None, force_terminal=False)
    with console.capture() as captured:
        console.print(status_tables(told))
    return captured.get()


def test_the_whole() -> None:
    text = show(
        {
            "house": HOUSE,
            "moves": {"start": 3, "stop": 1},
            "pools": [
                {
                    "name": "cpu",
                    "kind": "cpu",
                    "cores": 2.0,
                    "cores_used": 0.5,
                    "memory_bytes": 2**30,
                    "memory_bytes_used": 0,
                }
            ],
            "pipelines": {
                "a": {"model": "m", "ready": 1, "starting": 0, "draining": 0, "wanted": 1, "in_flight": 2, "queued": 0},
                "b": {"model": "m", "ready": 0, "blocked": "it crashed [5 times]"},
                "c": {"model": "m", "ready": 0},
            },
            "replicas": [
                {
                    "id": "0123456789abcdef",
                    "pipeline": "a",
                    "version": "sha256:" + "f" * 64,
                    "state": "ready",
                    "slots": 4,
                }
            ],
        }
    )
    for words in (
        "3 starts",
        "1.5",
        "asleep",
        "blocked: it crashed [5 times]",
        "ffffffffffff",
        "89abcdef",
        "exited with 1",
    ):
        assert words in text


def test_the_little_that_is_known_without_a_gateway() -> None:
    text = show({"house": HOUSE, "fault": "the gateway does not answer"})
    assert "the gateway does not answer" in text
    assert "exited with 1" in text


def test_what_more_capacity_would_bring() -> None:
    busy = {"ready": 3, "starting": 0, "draining": 0, "wanted": 3, "in_flight": 12, "queued": 27, "arrivals_per_s": 8.8}
    pool = {"kind": "cpu", "cores": 2.0, "cores_used": 2.0, "memory_bytes": 2**34, "memory_bytes_used": 2**28}
    told = {
        "house": HOUSE,
        "moves": {"start": 4, "stop": 0},
        "gap_to_bound": 0.0034,
        "pools": [{"name": "cpu", "price": 0.8613, **pool}, {"name": "old", "price": None, **pool}],
        "pipelines": {
            "ticket-category": {"model": "ticket-category", "value": 0.4137, "shed": 0.621, **busy},
            "calm": {"model": "m", "value": 0.0, "shed": 0.0, **busy},
        },
    }
    text = show(told, width=120)
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert "moves: 4 starts, 0 wakes, 0 rests, 0 stops; within 0.3 % of the best possible" in text
    assert lines["ticket-category"][-5:] == ["8.8", "0.41", "shed", "62.1", "%"], "on one line"
    assert lines["calm"][-2:] == ["8.8", "0"]
    assert lines["cpu"][-1] == "0.86" and lines["old"][-1] == "-"
    assert "nothing better is possible" in show(told | {"gap_to_bound": 0.0})
    assert "possible" not in show(told | {"gap_to_bound": None})


def test_a_rented_replica_that_nobody_needs_now_is_said_to_be_kept() -> None:
    one = {"model": "m", "ready": 1, "wanted": 1, "in_flight": 0, "queued": 0, "kept": 1}
    assert "kept alive" in show({"house": HOUSE, "pipelines": {"a": one}})
    assert "kept alive" not in show({"house": HOUSE, "pipelines": {"a": {**one, "in_flight": 1}}})
    assert "kept alive" not in show({"house": HOUSE, "pipelines": {"a": {**one, "kept": None}}})


def test_what_was_solved_exactly_is_told_with_its_decision() -> None:
    told = {"house": HOUSE, "gap_to_bound": 0.004, "gap_to_exact": 0.001, "exact_decision": 7}
    assert "within 0.4 % of the best possible; decision 7 is proven to be within 0.1 % of the best" in show(told)
    assert "decision 7 is proven to be the best" in show(told | {"gap_to_exact": 0.0})
    assert "decision" not in show(told | {"gap_to_exact": None})
