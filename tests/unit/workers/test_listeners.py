"""Listening sockets and the lock: what is refused, with which words."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from headgate.core.errors import AlreadyRunning, ConfigError
from headgate.workers.listeners import Lock, bind_tcp, bind_unix


def test_port_0_takes_a_free_one_and_a_taken_one_is_named() -> None:
    with bind_tcp("gateway", "127.0.0.1", 0) as handle:
        port = handle.getsockname()[1]
        assert port > 0
        with pytest.raises(ConfigError, match=rf"gateway\.port: 127\.0\.0\.1:{port} is taken") as caught:
            bind_tcp("gateway", "127.0.0.1", port)
        assert caught.value.param == "gateway.port"


def test_ipv6_where_there_is_some() -> None:
    try:
        with bind_tcp("gateway", "::1", 0) as handle:
            assert handle.family == socket.AF_INET6
    except ConfigError:
        pytest.skip("no IPv6 here")


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigError, match="not of this machine"):
        bind_tcp("gateway", "192.0.2.1", 0)
    with pytest.raises(ConfigError, match="has no address"):
        bind_tcp("gateway", "no such host", 0)


def test_a_unix_socket_is_ours_alone_and_stale_ones_go(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    bind_unix(path).close()  # leaves a file that nobody listens on
    with bind_unix(path):
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(AlreadyRunning):
            bind_unix(path)


def test_what_is_no_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="no socket"):
        bind_unix(path)
    assert path.read_text() == "precious"


def test_a_path_too_long_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too long for a socket"):
        bind_unix(tmp_path / ("x" * 100))


def test_the_lock_names_its_holder(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock")
    with pytest.raises(AlreadyRunning, match=f"pid {os.getpid()}"):
        Lock(tmp_path / "lock")
    lock.release()
    Lock(tmp_path / "lock").release()


def test_a_lock_that_its_holder_removed_is_not_taken_for_the_present_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    removed: list[int] = []

    def flock(handle: int, how: int) -> None:
        if not removed:  # the holder ends between our opening and our locking of the file
            path.unlink()
            removed.append(handle)

    monkeypatch.setattr("fcntl.flock", flock)
    lock = Lock(path)
    assert removed and path.read_text() == f"{os.getpid()}\n"
    lock.release()
