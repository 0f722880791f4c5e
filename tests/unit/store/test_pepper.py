"""The pepper's file: made once, private, and the one that the database's keys were made with."""

import os
from pathlib import Path

import pytest

from headgate.core.chance import SeededChance
from headgate.core.clock import ManualClock
from headgate.core.errors import StoreRefused
from headgate.store.keys import create_key, revoke_all_keys
from headgate.store.pepper import load_pepper, open_pepper
from tests.helpers.database import make_database, make_ids


def _open(state: Path, seed: int = 1) -> bytes:
    db = make_database(state)
    try:
        return open_pepper(db, state, chance=SeededChance(seed), clock=ManualClock())
    finally:
        db.close()


def test_it_is_made_once_and_private(tmp_path: Path) -> None:
    assert load_pepper(tmp_path) is None
    first = _open(tmp_path)
    assert len(first) == 32
    assert (tmp_path / "pepper").stat().st_mode & 0o777 == 0o600
    assert _open(tmp_path, seed=2) == first == load_pepper(tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("pepper.")], "no draft is left"


def test_a_maker_that_comes_second_takes_the_first_ones(tmp_path: Path) -> None:
    class Slow(SeededChance):
        def token_bytes(self, count: int) -> bytes:
            if not (tmp_path / "pepper").exists() and count == 32:
                (tmp_path / "pepper").write_bytes(b"f" * 32)
                (tmp_path / "pepper").chmod(0o600)
            return super().token_bytes(count)

    assert open_pepper(make_database(tmp_path), tmp_path, chance=Slow(1), clock=ManualClock()) == b"f" * 32


def test_a_file_that_others_can_read_is_refused_with_the_cure(tmp_path: Path) -> None:
    _open(tmp_path)
    (tmp_path / "pepper").chmod(0o640)
    with pytest.raises(StoreRefused, match=r"mode 0640.*chmod 600"):
        _open(tmp_path)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    _open(tmp_path)
    (tmp_path / "pepper").write_bytes(b"short")
    with pytest.raises(StoreRefused, match="5 bytes instead of 32"):
        _open(tmp_path)


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"x" * 32)
    os.symlink(tmp_path / "elsewhere", tmp_path / "pepper")
    with pytest.raises(StoreRefused, match="plain file"):
        _open(tmp_path)


def test_a_missing_or_foreign_pepper_is_refused_and_can_be_started_over(tmp_path: Path) -> None:
    first = _open(tmp_path)
    db = make_database(tmp_path)
    tools = {"ids": make_ids(), "clock": ManualClock(), "chance": SeededChance(5)}
    create_key(db, first, user="ada", **tools)
    (tmp_path / "pepper").unlink()
    with pytest.raises(StoreRefused, match=r"missing.*revoke --all"):
        _open(tmp_path)
    (tmp_path / "pepper").write_bytes(b"o" * 32)
    (tmp_path / "pepper").chmod(0o600)
    with pytest.raises(StoreRefused, match="not what this database's keys were made with"):
        _open(tmp_path)
    assert revoke_all_keys(db, clock=ManualClock()) == 1
    assert _open(tmp_path) == b"o" * 32
