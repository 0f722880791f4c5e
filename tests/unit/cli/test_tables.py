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


def show(told: dict[str, Any]) -> str:
    console = Console(width=200, record=True, file=None, force_terminal=False)
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
