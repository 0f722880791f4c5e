"""Whether replicas can have a network of their own here, and how. Unix sockets work across networks."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import threading
from typing import Literal

from headgate.core.errors import ConfigError
from headgate.workers.kernel import leave_network

Isolation = Literal["thread", "program", "none"]
_PROGRAM = ("unshare", "--user", "--map-current-user", "--net", "--")


def find_isolation(mode: Literal["auto", "on", "off"], listen: Literal["unix", "loopback"] = "unix") -> Isolation:
    """The way that works here: 'thread' (with the right to), 'program' (a user namespace), 'none'.

    A replica on a loopback port shares the machine's network, or nobody would reach it. Raises ConfigError when `mode`
    is 'on' and no way works; 'on' with a port is refused by the settings.
    """
    if mode == "off" or listen == "loopback":
        return "none"
    if _can_by_thread():
        return "thread"
    if _can_by_program():
        return "program"
    if mode == "on":
        raise ConfigError(
            "workers.isolate: this kernel gives no replica a network of its own; allow user namespaces "
            "(sysctl kernel.unprivileged_userns_clone=1, and install util-linux), or set it to auto",
            param="workers.isolate",
        )
    return "none"


def wrap_command(argv: tuple[str, ...], way: Isolation) -> tuple[str, ...]:
    """`argv`, behind the program that isolates it where that is the way.

    Raises FileNotFoundError when there is no such command: the program in front would only say so in the log.
    """
    if way != "program":
        return argv
    if shutil.which(argv[0]) is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), argv[0])
    return (*_PROGRAM, *argv)


def _can_by_thread() -> bool:
    worked: list[bool] = []

    def attempt() -> None:
        try:
            leave_network()
        except OSError:
            return
        worked.append(True)

    thread = threading.Thread(target=attempt, name="isolation-probe")  # it ends, and its network with it
    thread.start()
    thread.join()
    return bool(worked)


def _can_by_program() -> bool:
    if shutil.which(_PROGRAM[0]) is None:
        return False
    try:
        tried = subprocess.run([*_PROGRAM, "true"], capture_output=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return tried.returncode == 0
