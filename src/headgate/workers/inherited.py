"""What a node or gateway process got from its supervisor: listening sockets, and a pipe to say that it is
ready.

The supervisor names the sockets in HEADGATE_SOCKETS ('gateway=5,admin=6') and the pipe in HEADGATE_READY_FD.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

SOCKETS = "HEADGATE_SOCKETS"
READY_FD = "HEADGATE_READY_FD"
CHILD = "HEADGATE_CHILD"


def load_sockets(environ: MutableMapping[str, str] = os.environ) -> dict[str, socket.socket]:
    """The inherited listening sockets by name, non-blocking; {} when this process was started by hand.

    The variable is removed and the sockets become private, so that no child of this process gets them too.
    Raises OSError when a number is no socket.
    """
    sockets: dict[str, socket.socket] = {}
    for entry in filter(None, environ.pop(SOCKETS, "").split(",")):
        name, _, number = entry.partition("=")
        handle = socket.socket(fileno=int(number))
        handle.set_inheritable(False)
        handle.setblocking(False)
        sockets[name] = handle
    return sockets


def report_ready(environ: MutableMapping[str, str] = os.environ) -> None:
    """Tell the supervisor that this process does its work now. The first call counts, others do nothing."""
    number = environ.pop(READY_FD, None)
    if number is None:
        return
    try:
        os.write(int(number), b"READY\n")
    except OSError:  # the supervisor is gone; its death signal is on the way
        pass
    finally:
        os.close(int(number))
