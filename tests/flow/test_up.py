"""The command line with real processes: up, look, ask, change, down, and nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import AuthenticationError

from tests.helpers.whole_house import WholeHouse, new_house

CONFIGURATION = """
gateway: {port: 0, drain_s: 10}
pools: {cpu: {cores: 1}}
models:
  quick: {source: "fake:", cores: 0.1, slots: 16, context: 4096}
  ticket-category: {source: "bundled:ticket-category", cores: 0.25}
pipelines:
  quick: {model: quick, floor: 1, cap: 2}
  ticket-category: {model: ticket-category}
"""
MORE = CONFIGURATION.replace("cap: 2", "cap: 3") + "  second: {model: quick}\n"
TICKET = "My Lumo kettle K-45 arrived broken, order 48213. Please refund me 30 EUR. Maria Lopez"


@pytest.fixture
def house() -> Iterator[WholeHouse]:
    """A house that is not up yet."""
    with new_house(CONFIGURATION) as made:
        yield made


def leftovers(folder: Path) -> list[str]:
    """Processes that were started for a state folder and still live."""
    found: list[str] = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes() + b"\0" + (path / "environ").read_bytes()
        except OSError:
            continue
        if os.fsencode(folder) in words and path.name != str(os.getpid()):
            found.append(f"{path.name}: {words[:200]!r}")
    return found


def names(house: WholeHouse) -> list[str]:
    return sorted(model.id for model in house.client().models.list())


def test_a_day_in_the_life(house: WholeHouse) -> None:
    made = house.told("up", "--detach")
    house.key = made["admin_key"]
    assert made["pipelines"] == ["quick", "ticket-category"]
    assert made["url"] == house.url
    assert names(house) == ["quick", "ticket-category"]
    assert house.told("up", "--detach", code=4)["error"]["code"] == "already_running"

    status = house.told("status")
    assert status["house"]["stage"] == "running"
    assert [one["name"] for one in status["house"]["processes"]] == ["node", "gateway-0"]
    assert status["pipelines"].keys() == {"quick", "ticket-category"}
    assert "running" in house.command("status", "--config", str(house.config)).stdout

    answer = house.told("chat", "ticket-category", TICKET)
    assert answer["content"] and answer["usage"]["completion_tokens"] >= 1
    streamed = house.command("chat", "ticket-category", TICKET, "--config", str(house.config))
    assert (streamed.stdout, streamed.returncode) == (answer["content"] + "\n", 0)
    assert house.told("chat", "nobody", TICKET, code=6)["error"]["code"] == "model_not_found"

    decisions = house.told("explain", "--last", "200")["decisions"]
    assert any("ticket-category 0 -> 1" in one["reason"] for one in decisions)
    assert len(house.told("explain", "--last", "1")["decisions"]) == 1
    looks = house.command("top", "--count", "2", "--json", "--config", str(house.config)).stdout.splitlines()
    assert [json.loads(line)["house"]["stage"] for line in looks] == ["running"] * 2
    serving = next(one for one in house.told("doctor")["findings"] if one["what"] == "serving")
    assert house.url.removeprefix("http://") in serving["found"]

    pid = made["pid"]
    assert house.told("down")["pid"] == pid
    assert leftovers(house.state) == []
    assert house.told("down", code=3)["error"]["code"] == "not_running"
    assert house.told("up", "-d")["admin_key"] is None  # there is one already, and it still works
    assert names(house) == ["quick", "ticket-category"]


def test_keys_work_at_once_and_end_within_a_second(house: WholeHouse) -> None:
    house.up()
    admin = house.key
    made = house.told("key", "create", "ci")
    house.key = made["key"]
    assert names(house)
    house.told("key", "revoke", "ci")
    revoked = time.monotonic()
    with pytest.raises(AuthenticationError):
        while time.monotonic() < revoked + 10:
            names(house)
            time.sleep(0.05)
    assert time.monotonic() - revoked < 2.5
    logs = house.logs()
    assert made["key"] not in logs and admin not in logs


def test_reload_takes_a_good_file_and_refuses_a_bad_one(house: WholeHouse) -> None:
    house.up()
    house.config.write_text(MORE)
    changed = house.told("reload")["pipelines"]
    assert (changed["added"], changed["adjusted"], changed["replaced"]) == (["second"], ["quick"], [])
    house.wait("the new pipeline", lambda: names(house) == ["quick", "second", "ticket-category"])
    for bad, words in (
        (MORE.replace("floor", "flor"), "did you mean 'floor'"),
        (MORE.replace("port: 0", "port: 1"), "headgate down"),
        (MORE.replace("floor: 1", "floor: 200").replace("cap: 3", "cap: 200"), "floor"),
    ):
        house.config.write_text(bad)
        house.told("reload", code=2)
        assert words in house.command("reload", "--config", str(house.config)).stderr
        assert names(house) == ["quick", "second", "ticket-category"]
    house.config.write_text(MORE.replace("fake:", "/nowhere/model.gguf"))
    house.told("reload", code=5)
    assert names(house) == ["quick", "second", "ticket-category"]
    assert house.told("status")["house"]["stage"] == "running"


def test_in_the_foreground_it_becomes_the_supervisor(house: WholeHouse) -> None:
    output = (house.folder / "out").open("wb")
    command = [sys.executable, "-m", "headgate", "up", "--config", str(house.config)]
    process = subprocess.Popen(
        command, env=house.environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        house.wait("up", lambda: house.account["stage"] == "running", 60)
        assert house.account["pid"] == process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
        output.close()
    said = (house.folder / "out").read_text()
    assert said.index("shown this once") < said.index("is ready")
    assert leftovers(house.state) == []


def test_what_cannot_start_says_why_and_leaves_nothing(house: WholeHouse) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        house.config.write_text(CONFIGURATION.replace("port: 0", f"port: {port}"))
        said = house.told("up", "-d", code=2)["error"]["message"]
        assert str(port) in said
    assert leftovers(house.state) == []
    house.config.write_text(CONFIGURATION.replace("floor: 1, cap: 2", "floor: 99, cap: 99"))
    assert house.told("up", "-d", code=2)["error"]["code"] == "floors_do_not_fit"
    house.config.write_text(CONFIGURATION.replace("fake:", "/nowhere/model.gguf"))
    house.told("up", "-d", code=5)
    assert leftovers(house.state) == []


def test_the_demo_moves_replicas_loses_nothing_and_cleans_up(tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(short := Path(tempfile.mkdtemp(prefix="hgt-")))}
    command = [sys.executable, "-m", "headgate", "demo", "--seconds", "8", "--json"]
    try:
        run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
        assert run.returncode == 0, run.stderr
        told = json.loads(run.stdout)
        static, moving = told["static"], told["headgate"]
        assert moving["total"]["failures"] == 0
        assert static["total"]["requests"] == moving["total"]["requests"] > 10
        assert static["total"]["moves"] == 0
        assert moving["total"]["moves"] == sum(one["moves"] for one in moving["pipelines"].values()) > 0
        assert list(short.iterdir()) == []
        assert leftovers(short) == []

        # Why: tests that a shell runs in the background ignore SIGINT, and whoever they start would inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        for line in process.stderr:  # until the load has begun
            if line.startswith("3 "):
                break
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert list(short.iterdir()) == []
        assert leftovers(short) == []
    finally:
        shutil.rmtree(short, ignore_errors=True)
