"""Listening sockets and the lock of a state folder. Bound once, inherited by the supervisor's children."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from pathlib import Path

from headgate.core.errors import AlreadyRunning, ConfigError

_BACKLOG = 1024
_UNIX_PATH_BYTES = 104  # Source: sockaddr_un holds 108 on Linux and 104 on the BSDs, the ending zero included.


def bind_tcp(name: str, host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 takes a free one, `getsockname()` tells which.

    Raises ConfigError when the address is not of this machine, is taken, or is not ours to take.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise ConfigError(
            f"{name}.host: {host!r} has no address ({error.strerror}); use 127.0.0.1 or one of this machine",
            param=f"{name}.host",
        ) from error
    family, kind, protocol, _, address = found[0]
    handle = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
    try:
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        handle.bind(address)
        handle.listen(_BACKLOG)
    except OSError as error:
        handle.close()
        raise ConfigError(_explain(name, host, port, error), param=f"{name}.port") from error
    return handle


def bind_unix(path: Path) -> socket.socket:
    """A listening Unix socket at `path` that only this user may open. A stale one is removed first.

    Raises AlreadyRunning when somebody listens there; ConfigError when the path is too long or not a socket.
    """
    if len(os.fsencode(path)) >= _UNIX_PATH_BYTES:
        raise ConfigError(
            f"state: {path} is too long for a socket ({len(os.fsencode(path))} bytes, 103 are possible); "
            "choose a shorter state folder",
            param="state",
        )
    remove_stale(path)
    handle = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    before = os.umask(0o177)
    try:
        handle.bind(str(path))
    finally:
        os.umask(before)
    handle.listen(_BACKLOG)
    return handle


def remove_stale(path: Path) -> None:
    """Remove the socket at `path` unless somebody listens on it. Raises AlreadyRunning, ConfigError."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ConfigError(f"state: {path} is in the way and no socket; move it away", param="state")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
        except OSError:  # a full backlog: somebody listens, but slowly
            raise AlreadyRunning from None
        else:
            raise AlreadyRunning


class Lock:
    """A lock on a state folder, held by the open file for as long as this process lives."""

    def __init__(self, path: Path) -> None:
        """Take the lock at `path`, write our pid into it. Raises AlreadyRunning naming the holder's pid."""
        self._handle = _open_locked(path)
        while not _lies_at(self._handle, path):  # who held it removed it, with its folder: another one counts now
            os.close(self._handle)
            self._handle = _open_locked(path)
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give the lock back. The file stays; only who holds it may remove it before."""
        os.close(self._handle)


def _open_locked(path: Path) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(handle, 32).decode("ascii", "replace").strip() or "unknown"
        os.close(handle)
        raise AlreadyRunning(
            f"Headgate already runs on this state folder (pid {holder}). "
            "`headgate status` shows it, `headgate down` stops it."
        ) from None
    return handle


def _lies_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def _explain(name: str, host: str, port: int, error: OSError) -> str:
    place = f"{name}.port: {host}:{port}"
    if error.errno == errno.EADDRINUSE:
        return f"{place} is taken by another program; stop that one, or set {name}.port (0 takes a free one)"
    if error.errno == errno.EACCES:
        return f"{place} needs rights that this user has not; use a port above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{name}.host: {host} is not of this machine; use 127.0.0.1, or one that `ip addr` shows"
    return f"{place} cannot be listened on: {error.strerror}"
