"""The record of ends: written whole, found by identity, kept small."""

from __future__ import annotations

from pathlib import Path

from headgate.workers.exits import Exit, load_exit, name_signal, record_exit


def ended(pid: int, ticks: int, code: int | None = 0) -> Exit:
    return Exit(pid=pid, started_ticks=ticks, code=code, signal=None if code is not None else "SIGKILL", at=1.5)


def test_found_by_pid_and_start(tmp_path: Path) -> None:
    path = tmp_path / "exits.jsonl"
    assert load_exit(path, 1, 2) is None
    record_exit(path, ended(1, 2, 7))
    record_exit(path, ended(1, 9, None))
    assert load_exit(path, 1, 2) == ended(1, 2, 7)
    assert load_exit(path, 1, 9) == ended(1, 9, None)
    assert load_exit(path, 1, 3) is None
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_broken_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "exits.jsonl"
    record_exit(path, ended(1, 2))
    with path.open("a") as handle:
        handle.write('{"pid": 3, "star\n[1]\n')
    record_exit(path, ended(4, 5))
    assert load_exit(path, 1, 2) is not None
    assert load_exit(path, 4, 5) is not None
    assert load_exit(path, 3, 0) is None


def test_the_record_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "exits.jsonl"
    for number in range(1500):
        record_exit(path, ended(number, number))
    assert path.stat().st_size <= 64 * 1024 + 200
    assert load_exit(path, 1499, 1499) is not None
    assert load_exit(path, 0, 0) is None
    assert [entry.name for entry in tmp_path.iterdir()] == ["exits.jsonl"]


def test_words_for_people() -> None:
    assert ended(1, 1, 3).describe() == "exited with code 3"
    assert ended(1, 1, None)._replace(out_of_memory=True).describe() == (
        "was killed by SIGKILL (looks like out of memory)"
    )
    assert ended(1, 1)._replace(code=None).describe() == "ended, nobody saw how"
    assert name_signal(9) == "SIGKILL"
    assert name_signal(63) == "signal 63"
