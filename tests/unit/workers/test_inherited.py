"""The two ends of what a supervisor hands down."""

from __future__ import annotations

import os
import socket

from headgate.workers.inherited import load_sockets, report_ready


def test_sockets_by_name_become_private() -> None:
    with socket.socket() as first, socket.socket() as second:
        for handle in (first, second):
            handle.set_inheritable(True)
        environ = {"HEADGATE_SOCKETS": f"gateway={first.fileno()},admin={second.fileno()}"}
        sockets = load_sockets(environ)
        assert environ == {}
        assert {name: handle.fileno() for name, handle in sockets.items()} == {
            "gateway": first.fileno(),
            "admin": second.fileno(),
        }
        assert not any(handle.get_inheritable() or handle.getblocking() for handle in sockets.values())
        for handle in sockets.values():
            handle.detach()


def test_started_by_hand() -> None:
    assert load_sockets({}) == {}
    report_ready({})


def test_ready_is_said_once() -> None:
    reading, writing = os.pipe()
    environ = {"HEADGATE_READY_FD": str(writing)}
    report_ready(environ)
    report_ready(environ)
    assert os.read(reading, 100) == b"READY\n"
    assert os.read(reading, 100) == b""
    os.close(reading)


def test_a_supervisor_that_is_gone_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    report_ready({"HEADGATE_READY_FD": str(writing)})
