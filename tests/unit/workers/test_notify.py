"""Datagrams to the service manager."""

from __future__ import annotations

import socket
from pathlib import Path

from headgate.workers.notify import ServiceManager


def test_one_datagram_with_all_states(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        environ = {"NOTIFY_SOCKET": path, "PATH": "/bin"}
        ServiceManager(environ).tell(READY=1, STATUS="serving")
        assert manager.recv(100) == b"READY=1\nSTATUS=serving"
        assert environ == {"PATH": "/bin"}


def test_an_abstract_socket() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0headgate-test-notify")
        ServiceManager({"NOTIFY_SOCKET": "@headgate-test-notify"}).tell(STOPPING=1)
        assert manager.recv(100) == b"STOPPING=1"


def test_nobody_or_a_deaf_one_is_no_error(tmp_path: Path) -> None:
    ServiceManager({}).tell(READY=1)
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "none")}).tell(READY=1)
