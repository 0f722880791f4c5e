"""The whole house with real processes: what is killed comes back, and nothing accepted is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest
from openai import APIError, APIStatusError
from sqlalchemy import func, select

from headgate.store.database import Database, sqlite_url
from headgate.store.schema import calls, requests
from tests.helpers.whole_house import Background, WholeHouse, whole_house

CONFIGURATION = """
gateway: {port: 0, drain_s: 20}
pools: {cpu: {cores: 2}}
models:
  quick: {source: "fake:", cores: 0.1, slots: 16, context: 4096}
  slow: {source: "fake:", cores: 0.1, slots: 4, context: 4096, settings: {tokens_per_s: 20}}
  sleepy: {source: "fake:", cores: 0.1, slots: 4, context: 4096}
  ticket-extract: {source: "bundled:ticket-extract", cores: 0.5}
  ticket-category: {source: "bundled:ticket-category", cores: 0.25}
pipelines:
  quick: {model: quick, floor: 1, cap: 1}
  slow: {model: slow, floor: 2, cap: 2}
  sleepy: {model: sleepy, floor: 0, cap: 1, idle_s: 1s}
  ticket-extract: {model: ticket-extract}
  ticket-category: {model: ticket-category}
"""
TICKET = "My Lumo kettle K-45 arrived broken, order 48213. Please refund me 30 EUR. Maria Lopez"


@pytest.fixture(scope="module")
def house() -> Iterator[WholeHouse]:
    with whole_house(CONFIGURATION) as house:
        yield house


def ask(house: WholeHouse, model: str, tokens: int | None = None, **options: object) -> str:
    answer = house.client(timeout=60).chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": TICKET}],
        temperature=0,
        **({"max_tokens": tokens} if tokens else {}),
        **options,  # type: ignore[arg-type]
    )
    return answer.choices[0].message.content or ""


def stream(house: WholeHouse, model: str, tokens: int, started: list[float] | None = None, **options: object) -> str:
    """The text of a streamed answer; `started` gets the time of each piece."""
    text: list[str] = []
    pieces = house.client(timeout=60).chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": TICKET}],
        max_tokens=tokens,
        stream=True,
        **{"temperature": 0, **options},  # type: ignore[arg-type]
    )
    finish = None
    for piece in pieces:
        if piece.choices and piece.choices[0].delta.content:
            text.append(piece.choices[0].delta.content)
            if started is not None:
                started.append(time.monotonic())
        if piece.choices and piece.choices[0].finish_reason:
            finish = piece.choices[0].finish_reason
    assert finish in ("stop", "length")
    return "".join(text)


def find_busy(house: WholeHouse, pipeline: str) -> dict[str, int]:
    """The replica that works on a request."""
    return next(one for one in house.status()["replicas"] if one["pipeline"] == pipeline and one["in_flight"])


def has_floor(house: WholeHouse, pipeline: str, floor: int, *, without: int) -> bool:
    """Whether as many replicas are ready and the killed one is known to be gone: a status may be older than its end."""
    pids = [one["pid"] for one in house.replicas(pipeline)]
    return len(pids) == floor and without not in pids


def open_rows(house: WholeHouse) -> int:
    database = Database(sqlite_url(house.state / "headgate.db"))
    try:
        with database.read() as connection:
            return sum(
                connection.execute(select(func.count()).where(table.c.state == "open")).scalar_one()
                for table in (requests, calls)
            )
    finally:
        database.close()


def test_bundled_models_answer(house: WholeHouse) -> None:
    assert ask(house, "ticket-extract").startswith("{")
    assert ask(house, "ticket-category")


def test_a_stream_survives_its_replica(house: WholeHouse) -> None:
    whole = stream(house, "slow", 120)
    started: list[float] = []
    running = Background(lambda: stream(house, "slow", 120, started))
    house.wait("first pieces", lambda: len(started) > 8)
    busy = house.wait("reported", lambda: find_busy(house, "slow"), 5)
    house.kill(busy["pid"])
    assert running.join() == whole  # not a byte missing, not one twice
    house.wait("the floor again", lambda: has_floor(house, "slow", 2, without=busy["pid"]))


def test_a_seeded_stream_that_breaks_ends_with_an_error_event(house: WholeHouse) -> None:
    started: list[float] = []
    running = Background(lambda: stream(house, "slow", 200, started, temperature=1.0, seed=3))
    house.wait("first pieces", lambda: len(started) > 8)
    busy = house.wait("reported", lambda: find_busy(house, "slow"), 5)
    house.kill(busy["pid"])
    with pytest.raises(APIError, match="cannot be continued exactly"):
        running.join()
    house.wait("the floor again", lambda: has_floor(house, "slow", 2, without=busy["pid"]))


def test_replicas_and_streams_survive_the_node(house: WholeHouse) -> None:
    house.wait("all floors", lambda: (len(house.replicas("slow")), len(house.replicas("quick"))) == (2, 1))
    before = {one["pid"] for one in house.replicas("slow") + house.replicas("quick")}
    node = house.pid("node")
    started: list[float] = []
    running = Background(lambda: stream(house, "slow", 80, started))
    house.wait("first pieces", lambda: len(started) > 3)
    house.kill(node)
    assert ask(house, "quick")  # gateways go on by the last table
    house.wait("a new node", lambda: house.pid("node") not in (0, node))
    running.join()
    house.wait("adopted", lambda: {one["pid"] for one in house.replicas("slow") + house.replicas("quick")} == before)
    assert ask(house, "sleepy")  # the new node starts replicas


def test_replicas_survive_a_gateway(house: WholeHouse) -> None:
    house.wait("its floor", lambda: house.replicas("quick"))
    before = {one["pid"] for one in house.replicas("quick")}
    gateway = house.pid("gateway-0")
    house.kill(gateway)
    house.wait("a new gateway", lambda: house.pid("gateway-0") not in (0, gateway))
    assert house.wait("answers", lambda: ask(house, "quick"))
    assert {one["pid"] for one in house.replicas("quick")} == before


def test_rolling_restart_loses_nothing(house: WholeHouse) -> None:
    gateway, node = house.pid("gateway-0"), house.pid("node")
    answers: list[str] = []
    enough = False

    def drive() -> None:
        while not enough:
            answers.append(ask(house, "quick", 4))

    running = [Background(drive) for _ in range(2)]
    started: list[float] = []
    long = Background(lambda: stream(house, "slow", 100, started))
    house.wait("under way", lambda: len(answers) > 5 and len(started) > 3)
    house.kill(house.account["pid"], signal.SIGUSR1)
    house.wait(
        "replaced", lambda: house.pid("gateway-0") not in (0, gateway) and house.pid("node") not in (0, node), 60
    )
    count = len(answers)
    house.wait("answers by the new gateway", lambda: len(answers) > count + 5)
    enough = True
    for one in running:
        one.join()
    assert long.join()
    assert all(answers)


def test_scale_to_zero_and_wake(house: WholeHouse) -> None:
    assert ask(house, "sleepy")
    house.wait("asleep", lambda: not house.replicas("sleepy"))
    began = time.monotonic()
    assert ask(house, "sleepy")  # held while a replica wakes
    assert time.monotonic() - began < 20
    house.wait("asleep again", lambda: not house.replicas("sleepy"))


def test_reload_keeps_streams_and_refuses_a_bad_file(house: WholeHouse) -> None:
    good = house.config.read_text()
    started: list[float] = []
    running = Background(lambda: stream(house, "slow", 80, started))
    house.wait("first pieces", lambda: len(started) > 3)
    house.config.write_text(good.replace("quick: {model: quick, floor: 1, cap: 1}", "quick: {model: quick, flor: 1}"))
    told = house.command("reload", "--config", str(house.config))
    assert told.returncode == 2 and "did you mean 'floor'" in told.stdout + told.stderr
    assert ask(house, "quick")
    changed = good.replace("tokens_per_s: 20", "tokens_per_s: 25") + "  extra: {model: quick, floor: 1, cap: 1}\n"
    house.config.write_text(changed)
    told = house.command("reload", "--config", str(house.config))
    assert told.returncode == 0, told.stdout + told.stderr
    assert house.wait("the new pipeline", lambda: ask(house, "extra"))
    assert running.join()
    house.config.write_text(good)
    told = house.command("reload", "--config", str(house.config))
    assert told.returncode == 0, told.stdout + told.stderr
    with pytest.raises(APIStatusError) as refused:
        ask(house, "extra")
    assert refused.value.status_code == 404


def test_a_client_that_leaves_frees_its_slot(house: WholeHouse) -> None:
    client = house.client(timeout=60)
    pieces = client.chat.completions.create(
        model="slow", messages=[{"role": "user", "content": TICKET}], max_tokens=1000, temperature=0, stream=True
    )
    next(iter(pieces))
    pieces.close()
    client.close()
    house.wait("free", lambda: all(one["in_flight"] == 0 for one in house.status()["replicas"]), 5)


def test_every_row_is_settled(house: WholeHouse) -> None:
    house.wait("settled", lambda: open_rows(house) == 0, 130)  # rows of the killed gateway wait for the node's upkeep


def test_termination_drains(house: WholeHouse) -> None:
    """Last: it takes the house down."""
    started: list[float] = []
    running = Background(lambda: stream(house, "slow", 120, started))
    house.wait("first pieces", lambda: len(started) > 3)
    account = house.account
    pids = [one["pid"] for one in house.status()["replicas"]]
    house.kill(account["pid"], signal.SIGTERM)
    assert running.join()
    house.wait("down", lambda: not os.path.exists(f"/proc/{account['pid']}"), 40)
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
