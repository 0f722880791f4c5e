"""The run folder that lies away from the state folder: gone after the house, never with anything else in it."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from headgate.workers.run_folder import remove_run_folder


@pytest.fixture
def top() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hg-") as name:
        made = Path(name) / "headgate-0-x"
        (made / "run").mkdir(mode=0o700, parents=True)
        made.chmod(0o700)
        yield made


def leave_socket(path: Path) -> socket.socket:
    handle = socket.socket(socket.AF_UNIX)
    handle.bind(str(path))
    return handle


def test_an_empty_one_goes(top: Path) -> None:
    assert remove_run_folder(top)
    assert not top.exists()


def test_one_without_a_run_goes_as_well(top: Path) -> None:
    (top / "run").rmdir()
    assert remove_run_folder(top)
    assert not top.exists()


def test_stale_sockets_and_our_records_go(top: Path) -> None:
    leave_socket(top / "run" / "node.sock").close()
    for name in ("lock", "spec.json", "exits.jsonl", "replica-1.json", "supervisor.json.new"):
        (top / "run" / name).write_text("")
    (top / "run" / "metrics").mkdir(mode=0o700)
    (top / "run" / "metrics" / "counter_7.db").write_text("")
    assert remove_run_folder(top)
    assert not top.exists()


def test_a_socket_that_somebody_listens_on_stays(top: Path) -> None:
    with leave_socket(top / "run" / "node.sock") as handle:
        handle.listen(1)
        assert not remove_run_folder(top)
        assert (top / "run" / "node.sock").exists()


@pytest.mark.parametrize("where", ["precious", "run/precious", "run/metrics/precious", "run/lock/precious"])
def test_with_anything_else_in_it_all_of_it_stays(top: Path, where: str) -> None:
    (top / "run" / "spec.json").write_text("{}")
    (top / where).parent.mkdir(mode=0o700, exist_ok=True)
    (top / where).write_text("precious")
    assert not remove_run_folder(top)
    assert (top / where).read_text() == "precious"
    assert (top / "run" / "spec.json").exists()


@pytest.mark.parametrize("link", ["", "run", "run/metrics", "run/spec.json", "run/node.sock"])
def test_no_link_is_followed_nor_removed(top: Path, link: str) -> None:
    away = top.parent / "away"
    away.mkdir(mode=0o700)
    (away / "lock").write_text("")
    path = top / link if link else top
    if path.is_dir():
        (top / "run").rmdir()
        if not link:
            top.rmdir()
    path.symlink_to(away)
    assert not remove_run_folder(top)
    assert path.is_symlink()
    assert (away / "lock").exists()


@pytest.mark.parametrize("folder", ["", "run"])
def test_one_that_is_open_to_others_stays(top: Path, folder: str) -> None:
    (top / folder).chmod(0o750)
    assert not remove_run_folder(top)
    assert (top / "run").exists()


def test_one_of_another_user_stays(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert not remove_run_folder(top)
    assert (top / "run").exists()


def test_none_is_no_error(top: Path) -> None:
    assert not remove_run_folder(top / "none")
