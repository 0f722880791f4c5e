"""The few Linux calls that Python 3.11 has no name for. Knows nothing of replicas or of the supervisor."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1
# Source: linux/prctl.h, linux/sched.h, linux/sockios.h, linux/if.h (kernel 6.1).

_libc = ctypes.CDLL(None, use_errno=True)


def set_death_signal(number: int) -> None:
    """Have the kernel send signal `number` to this process when the thread that started it ends.

    It survives exec, not fork. Raises OSError.
    """
    _check(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(number), 0, 0, 0))


def adopt_orphans() -> None:
    """Have orphaned descendants fall to this process, so that it can reap them. Raises OSError."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0))


def leave_network() -> None:
    """Move the calling thread, and what it starts, to a network of its own with only a loopback device.

    Why a thread can: the network namespace is a property of the thread, so a thread that ends after starting
    one process changes nothing for the others. Raises PermissionError without the right to (CAP_SYS_ADMIN).
    """
    _check(_libc.unshare(_CLONE_NEWNET))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:  # engines may talk to themselves on it
        request = struct.pack("16sh22x", b"lo", 0)
        flags = struct.unpack("16sh22x", fcntl.ioctl(handle, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(handle, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | _IFF_UP))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
