"""Rotation by copy and truncation, so that writers need not be told; old replica logs go."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from headgate.core.clock import ManualClock
from headgate.core.secret import Secret
from headgate.workers.log_tail import load_tail
from headgate.workers.logs import keep_logs_small, prune_replica_logs, rotate_log, rotate_logs
from headgate.workers.settings import WorkerSettings


def test_a_small_log_is_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "node.log"
    log.write_text("few")
    assert not rotate_log(log, limit_bytes=10, keep=2)
    assert log.read_text() == "few"
    assert not rotate_log(tmp_path / "none.log", limit_bytes=10, keep=2)


def test_rotation_keeps_n_and_writers_go_on(tmp_path: Path) -> None:
    log = tmp_path / "node.log"
    with log.open("a", buffering=1) as writer:
        for number in range(4):
            writer.write(f"round {number}, long enough\n")
            assert rotate_log(log, limit_bytes=10, keep=2)
        writer.write("after\n")
    assert log.read_text() == "after\n"
    assert (tmp_path / "node.log.1").read_text() == "round 3, long enough\n"
    assert (tmp_path / "node.log.2").read_text() == "round 2, long enough\n"
    assert not (tmp_path / "node.log.3").exists()
    assert (tmp_path / "node.log.1").stat().st_mode & 0o777 == 0o600


def test_keeping_none_truncates(tmp_path: Path) -> None:
    log = tmp_path / "node.log"
    log.write_text("x" * 20)
    assert rotate_log(log, limit_bytes=10, keep=0)
    assert log.stat().st_size == 0
    assert len(list(tmp_path.iterdir())) == 1


def test_links_are_left_alone(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("x" * 20)
    (tmp_path / "a.log").symlink_to(victim)
    (tmp_path / "b.log").write_text("x" * 20)
    assert rotate_logs(tmp_path, limit_bytes=10, keep=1) == [tmp_path / "b.log"]
    assert victim.stat().st_size == 20


def test_old_replica_logs_go_and_live_ones_stay(tmp_path: Path) -> None:
    for number, name in enumerate(["a", "b", "c", "live"]):
        log = tmp_path / f"replica-{name}.log"
        log.write_text(name)
        os.utime(log, (number, number))
    (tmp_path / "replica-a.log.1").write_text("older")
    (tmp_path / "node.log").write_text("x")
    assert prune_replica_logs(tmp_path, {"live"}, 1) == ["b", "a"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["node.log", "replica-c.log", "replica-live.log"]


async def test_the_keeper_works_on_the_given_clock(tmp_path: Path) -> None:
    log = tmp_path / "gateway.log"
    log.write_text("x" * 20)
    clock = ManualClock()
    settings = WorkerSettings(log_bytes=10, log_keep=1)
    keeper = asyncio.create_task(keep_logs_small(tmp_path, settings, clock, set))
    await asyncio.sleep(0)
    await clock.advance(31.0)
    for _ in range(200):
        if log.stat().st_size == 0:
            break
        await asyncio.sleep(0.01)
    keeper.cancel()
    assert (tmp_path / "gateway.log.1").stat().st_size == 20


def test_the_tail_blots_out_secrets_and_starts_where_the_process_did(tmp_path: Path) -> None:
    log = tmp_path / "replica-r.log"
    log.write_text("of another run\nkey hush-hush here\nlast\n")
    offset = len("of another run\n")
    assert load_tail(log, offset, 10, (Secret("hush-hush"),)) == ["key *** here", "last"]
    assert load_tail(log, offset, 1) == ["last"]
    assert load_tail(log, 9999, 1) == ["last"]  # rotated since
    assert load_tail(tmp_path / "none", 0, 1) == []
