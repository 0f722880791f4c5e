"""The supervisor with real processes: nothing refused, nothing left over, everything on record."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headgate.workers.exits import load_exit
from headgate.workers.proc import is_running, read_pss_bytes, read_stat
from tests.flow.house import ADOPTING_NODE, CRASH, GATEWAY, IGNORE, NODE, House, a_house


@pytest.fixture
def house() -> Iterator[House]:
    with tempfile.TemporaryDirectory(prefix="hg-") as name, a_house(Path(name)) as made:
        yield made


def ticks_of(pid: int) -> int:
    stat = read_stat(pid)
    assert stat is not None
    return stat.started_ticks


def test_serves_small_and_private(house: House) -> None:
    house.start(node=NODE, gateway_0=GATEWAY, gateway_1=GATEWAY)
    assert house.ask() in {house.child("gateway-0"), house.child("gateway-1")}
    assert house.run.stat().st_mode & 0o777 == 0o700
    for name in ("supervisor.json", "lock", "admin.sock"):
        assert (house.run / name).stat().st_mode & 0o777 == 0o600
    pss = read_pss_bytes(house.pid)
    assert pss is not None
    assert pss < 12 * 2**20


def test_a_second_supervisor_is_refused_by_name(house: House) -> None:
    house.start(node=NODE, gateway_0=GATEWAY)
    second = subprocess.run(
        [sys.executable, "-m", "headgate.workers.supervisor", str(house.state / "spec.json")],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert second.returncode == os.EX_TEMPFAIL
    assert f"pid {house.pid}" in second.stderr
    assert house.ask() == house.child("gateway-0")


def test_a_killed_gateway_is_replaced_and_no_connection_refused(house: House) -> None:
    house.start(node=NODE, gateway_0=GATEWAY)
    first = house.child("gateway-0")
    assert first is not None
    failures: list[Exception] = []
    answered: set[int] = set()
    stop = threading.Event()

    def keep_asking() -> None:
        while not stop.is_set():
            try:
                answered.add(house.ask())
            except ConnectionResetError:
                pass  # it was in the killed gateway's hands
            except ValueError:
                pass  # the same, seen as an empty answer
            except Exception as error:
                failures.append(error)

    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        os.kill(first, signal.SIGKILL)
        house.wait_for(lambda: house.child("gateway-0") not in (None, first))
        house.wait_for(lambda: house.child("gateway-0") in answered)
    finally:
        stop.set()
        asking.join()
    assert failures == []
    assert house.restarts("gateway-0") == 1


def test_a_killed_node_is_restarted_and_its_replica_lives_on(house: House) -> None:
    house.start(node=NODE, gateway_0=GATEWAY)
    first = house.child("node")
    assert first is not None
    orphan, ticks = house.orphan, ticks_of(house.orphan)
    os.kill(first, signal.SIGKILL)
    house.wait_for(lambda: house.child("node") not in (None, first))
    assert is_running(orphan, ticks)
    stat = read_stat(orphan)
    assert stat is not None
    assert stat.parent == house.pid  # reaped by the supervisor from now on
    os.kill(orphan, signal.SIGTERM)
    house.wait_for(lambda: load_exit(house.run / "exits.jsonl", orphan, ticks))
    ended = load_exit(house.run / "exits.jsonl", orphan, ticks)
    assert ended is not None
    assert (ended.code, ended.signal, ended.name) == (7, None, None)
    node_end = (house.run / "exits.jsonl").read_text().splitlines()[0]
    assert '"SIGKILL"' in node_end


def test_a_new_node_adopts_the_replica_and_learns_how_it_ended(house: House) -> None:
    house.start(node=ADOPTING_NODE, gateway_0=GATEWAY)
    first = house.child("node")
    assert first is not None
    orphan, ticks = house.orphan, ticks_of(house.orphan)
    os.kill(first, signal.SIGKILL)
    house.wait_for(lambda: "adopted" in house.children_said)
    assert is_running(orphan, ticks)
    os.kill(orphan, signal.SIGTERM)  # the supervisor reaps it, the node reads its record
    house.wait_for(lambda: "replica exited with code 6" in house.children_said)
    house.signal(signal.SIGTERM)
    assert house.end() == 0


def test_a_replica_survives_a_rolling_restart_and_not_the_end(house: House) -> None:
    house.start(node=ADOPTING_NODE, gateway_0=GATEWAY)
    orphan, ticks = house.orphan, ticks_of(house.orphan)
    house.signal(signal.SIGUSR1)
    house.wait_for(lambda: "adopted" in house.children_said)
    assert is_running(orphan, ticks)
    house.signal(signal.SIGTERM)
    assert house.end() == 0
    assert not is_running(orphan, ticks)
    assert "replica exited with code 6" in house.children_said
    assert not list(house.run.glob("replica-*"))


def test_replicas_of_a_node_that_died_are_ended_too() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="hg-") as name,
        a_house(Path(name), backoff_first_s=60.0, backoff_limit_s=60.0) as house,
    ):
        house.start(node=NODE, gateway_0=GATEWAY)
        node = house.child("node")
        assert node is not None
        orphan, ticks = house.orphan, ticks_of(house.orphan)
        os.kill(node, signal.SIGKILL)
        house.wait_for(lambda: house.restarts("node") == 1)
        house.signal(signal.SIGTERM)  # while nobody is there who could stop them
        assert house.end() == 0
        assert not is_running(orphan, ticks)


def test_sigterm_lets_a_stream_end_and_leaves_nothing(house: House) -> None:
    house.start(node=NODE, gateway_0=GATEWAY)
    left = {pid: ticks_of(pid) for pid in house.descendants()}
    assert len(left) == 3
    with house.connect() as stream:
        stream.sendall(b"stream")
        assert stream.recv(100) == b"begun "
        house.signal(signal.SIGTERM)
        house.wait_for(lambda: house.stage == "draining")
        with pytest.raises(OSError):  # nobody new is accepted
            for _ in range(100):
                house.connect().close()
                time.sleep(0.02)
        stream.sendall(b"go on")
        assert stream.recv(100) == b"ended"
    assert house.end() == 0
    assert not [pid for pid, ticks in left.items() if is_running(pid, ticks)]
    assert "stopped for good" in house.children_said
    assert sorted(path.name for path in house.run.iterdir() if "orphan" not in path.name) == [
        "exits.jsonl",
        "lock",
    ]


def test_who_does_not_drain_is_killed_and_a_second_signal_does_not_wait() -> None:
    with tempfile.TemporaryDirectory(prefix="hg-") as name:
        with a_house(Path(name), drain_s=0.2, grace_s=0.2) as house:
            house.start(node=IGNORE, gateway_0=IGNORE)
            house.signal(signal.SIGTERM)
            assert house.end() == 0
            assert house.said.count("did not end in time") == 2
        with a_house(Path(name), drain_s=60.0, grace_s=60.0) as house:
            house.start(node=NODE, gateway_0=IGNORE)
            left = {pid: ticks_of(pid) for pid in house.descendants()}
            house.signal(signal.SIGTERM)
            house.wait_for(lambda: house.stage == "draining")
            house.signal(signal.SIGTERM)
            assert house.end() == 0
            assert not [pid for pid, ticks in left.items() if is_running(pid, ticks)]


def test_hangup_is_passed_on(house: House) -> None:
    house.start(node=NODE, gateway_0=GATEWAY)
    house.signal(signal.SIGHUP)
    house.wait_for(lambda: house.children_said.count("reload") == 2)
    assert house.ask() == house.child("gateway-0")


def test_rolling_restart_replaces_all_without_a_gap(house: House) -> None:
    house.start(node=NODE, gateway_0=GATEWAY)
    node, gateway, orphan = house.child("node"), house.child("gateway-0"), house.orphan
    assert gateway is not None
    ticks, orphan_ticks = ticks_of(gateway), ticks_of(orphan)
    with house.connect() as stream:
        stream.sendall(b"stream")
        assert stream.recv(100) == b"begun "
        house.signal(signal.SIGUSR1)
        house.wait_for(lambda: house.child("gateway-0") not in (None, gateway))
        house.wait_for(lambda: house.child("node") not in (None, node))
        assert house.ask() == house.child("gateway-0")
        assert is_running(gateway, ticks)  # it finishes what it began
        stream.sendall(b"go on")
        assert stream.recv(100) == b"ended"
    house.wait_for(lambda: not is_running(gateway, ticks))
    assert is_running(orphan, orphan_ticks)
    assert "left" in house.children_said
    assert house.restarts("node") == house.restarts("gateway-0") == 0


def test_a_replacement_that_fails_leaves_the_old_one(house: House) -> None:
    once = "from pathlib import Path\nimport sys\nmark = Path(sys.argv[1]) / 'mark'\n"
    once += f"if mark.exists(): sys.exit(9)\nmark.touch()\n{GATEWAY}"
    house.start(node=NODE, gateway_0=once)
    gateway = house.child("gateway-0")
    house.signal(signal.SIGUSR1)
    house.wait_for(lambda: "the old one stays" in house.said)
    assert house.ask() == house.child("gateway-0") == gateway


def test_a_crash_loop_backs_off(house: House) -> None:
    later = "from pathlib import Path\nimport sys, time\nmark = Path(sys.argv[1]) / 'mark'\n"
    later += f"if mark.exists(): sys.exit(9)\nmark.touch()\n{GATEWAY}"
    house.start(node=NODE, gateway_0=later)
    gateway = house.child("gateway-0")
    assert gateway is not None
    os.kill(gateway, signal.SIGKILL)
    house.wait_for(lambda: house.restarts("gateway-0") == 5)
    waits = [float(line.split("next start in ")[1].split()[0]) for line in house.said.splitlines() if "next" in line]
    assert waits[0] < 0.11
    assert all(later > 1.4 * sooner for sooner, later in itertools.pairwise(waits))
    assert house.stage == "running"  # the house stands, and tries again
    account = house.account
    assert account is not None
    assert account.children[1].last_exit == "exited with code 9"


def test_a_child_that_never_starts_ends_the_house() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="hg-") as name,
        a_house(Path(name), backoff_first_s=0.01, start_tries=3) as house,
    ):
        house.begin(node=NODE, gateway_0=CRASH)
        assert house.end() == 1
        assert "gateway-0 cannot be started" in house.said


def test_a_command_that_is_not_there_is_named(house: House) -> None:
    path = house.write_spec(node=NODE)
    path.write_text(path.read_text().replace(sys.executable, "/no/such/program"))
    tried = subprocess.run(
        [sys.executable, "-m", "headgate.workers.supervisor", str(path)], capture_output=True, timeout=30
    )
    assert tried.returncode == 1
    assert "node: cannot start /no/such/program" in house.children_said


def test_the_service_manager_is_told(house: House) -> None:
    path = str(house.state / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(15)
        house.start({"NOTIFY_SOCKET": path}, node=NODE, gateway_0=GATEWAY)
        assert manager.recv(200).startswith(b"READY=1")
        house.signal(signal.SIGHUP)
        assert manager.recv(200).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert manager.recv(200) == b"READY=1"
        house.signal(signal.SIGTERM)
        assert manager.recv(200).startswith(b"STOPPING=1")
    assert house.end() == 0


def test_children_go_when_the_supervisor_is_killed_but_replicas_stay(house: House) -> None:
    house.start(node=NODE, gateway_0=GATEWAY)
    node, gateway, orphan = house.child("node"), house.child("gateway-0"), house.orphan
    assert node is not None and gateway is not None
    ticks = {pid: ticks_of(pid) for pid in (node, gateway, orphan)}
    house.signal(signal.SIGKILL)
    house.end()
    house.wait_for(lambda: not is_running(node, ticks[node]) and not is_running(gateway, ticks[gateway]))
    assert is_running(orphan, ticks[orphan])
    house.start(node=NODE, gateway_0=GATEWAY)  # stale files do not stand in the way
    assert house.ask() == house.child("gateway-0")
    os.kill(orphan, signal.SIGKILL)


@pytest.mark.parametrize("arguments", [[], ["/no/such/spec.json"]])
def test_a_bad_call_is_explained(arguments: list[str]) -> None:
    tried = subprocess.run(
        [sys.executable, "-m", "headgate.workers.supervisor", *arguments],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert tried.returncode == os.EX_CONFIG
    assert tried.stderr.startswith("headgate: ")
