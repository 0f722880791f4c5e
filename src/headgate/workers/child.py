"""One run of one child of the supervisor: forked, told its sockets, watched until it ends."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping
from typing import NoReturn

from headgate.workers.inherited import CHILD, READY_FD, SOCKETS
from headgate.workers.kernel import set_death_signal
from headgate.workers.proc import read_stat
from headgate.workers.spec import Supervised

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)


class Run:
    """One process. `kill_at` and `ready_by` are in monotonic seconds; `leaving` says that its end is asked
    for.
    """

    def __init__(self, spec: Supervised, pid: int, ready_fd: int, now: float, ready_by: float) -> None:
        stat = read_stat(pid)
        self.spec = spec
        self.pid = pid
        self.started_ticks = stat.started_ticks if stat else 0
        self.started = now
        self.ready = False
        self.ready_fd: int | None = ready_fd
        self.ready_by: float | None = ready_by
        self.kill_at: float | None = None
        self.leaving = False

    def leave(self, number: int, kill_at: float) -> None:
        """Ask the process to go with signal `number`; from `kill_at` on it is killed."""
        self.leaving = True
        self.ready_by = None
        self.kill_at = kill_at if self.kill_at is None else min(self.kill_at, kill_at)
        self.signal(number)

    def signal(self, number: int) -> None:
        """Send a signal to the process alone. It is our child and not reaped, so the number cannot be
        another's.
        """
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End the process and all of its group now."""
        self.kill_at = None
        kill_group(self.pid)

    def read_ready(self) -> bool:
        """Read the pipe; True when the process said READY just now."""
        assert self.ready_fd is not None
        try:
            said = os.read(self.ready_fd, 64)
        except BlockingIOError:
            return False
        if not said or b"READY" in said:
            self.close()
        self.ready = self.ready or b"READY" in said
        if self.ready:
            self.ready_by = None
        return b"READY" in said

    def close(self) -> None:
        """Forget the pipe."""
        if self.ready_fd is not None:
            os.close(self.ready_fd)
            self.ready_fd = None


def kill_group(pid: int) -> None:
    """SIGKILL to the process group that `pid` leads, and to `pid` should it not lead one yet."""
    for send in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            send(pid, signal.SIGKILL)


def start_child(
    spec: Supervised, sockets: Mapping[str, int], environ: Mapping[str, str], now: float, ready_by: float
) -> Run:
    """Start `spec` in a process group of its own; `sockets` are file descriptors by name.

    Why fork and exec by hand: the supervisor has one thread and few pages, so fork is cheap and safe here,
    and the child can set its death signal and check its parent in between. A command that cannot be executed
    ends with code 127 and a line on its standard error. Raises OSError when there is no process or descriptor
    left.
    """
    ready_read, ready_write = os.pipe()
    os.set_blocking(ready_read, False)
    parent = os.getpid()
    environment = {
        **environ,
        **spec.environment,
        CHILD: spec.name,
        READY_FD: str(ready_write),
        SOCKETS: ",".join(f"{name}={sockets[name]}" for name in spec.sockets),
    }
    try:
        pid = os.fork()
    except OSError:
        os.close(ready_read)
        os.close(ready_write)
        raise
    if pid == 0:
        _become(spec, parent, environment, (ready_write, *(sockets[name] for name in spec.sockets)))
    os.close(ready_write)
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)  # the child does it as well: whoever comes first
    return Run(spec, pid, ready_read, now, ready_by)


def _become(spec: Supervised, parent: int, environment: Mapping[str, str], keep: tuple[int, ...]) -> NoReturn:
    try:
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        for number in (*HANDLED, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        set_death_signal(signal.Signals[spec.leave_signal])
        if os.getppid() != parent:  # it died before the kernel knew that we want to know
            os._exit(1)
        for descriptor in keep:
            os.set_inheritable(descriptor, True)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if spec.log is not None:
            output = os.open(spec.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.dup2(output, 1)
            os.dup2(output, 2)
        os.execvpe(spec.argv[0], spec.argv, environment)  # noqa: S606
    except BaseException as error:
        os.write(2, f"{spec.name}: cannot start {spec.argv[0]}: {error}\n".encode())
    finally:
        os._exit(127)
