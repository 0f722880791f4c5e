"""The small process that owns listening sockets and children.

`python -m headgate.workers.supervisor SPEC.json` starts it. It binds, starts the node and the gateways,
starts again what crashes, reaps what is orphaned, and takes the house down in order. Signals: TERM or INT
drains and stops (a second one stops at once), HUP is passed on (reload, reopen logs), USR1 replaces every
child one after another without a gap. Knows nothing of HTTP, models or replicas, and imports only the
standard library and core, so that it stays at a few megabytes.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import sys
from pathlib import Path
from types import FrameType

from headgate.core.chance import Chance, SystemChance
from headgate.core.clock import SystemClock
from headgate.core.errors import ConfigError, HeadgateError
from headgate.workers.child import HANDLED, Run, kill_group
from headgate.workers.exits import Exit, read_status, record_exit
from headgate.workers.kernel import adopt_orphans
from headgate.workers.listeners import Lock, bind_tcp, bind_unix
from headgate.workers.notify import ServiceManager
from headgate.workers.places import Places
from headgate.workers.proc import children_of, read_stat
from headgate.workers.run_folder import remove_run_folder
from headgate.workers.spec import Spec, load_spec
from headgate.workers.supervisor_state import ChildState, SupervisorState, record_state

_SWEEP_S = 2.0
_REBIND_S = 5.0


class Supervisor:
    """The event loop. Stages: starting, running; draining (gateways), stopping (node), sweeping (orphans),
    done.
    """

    def __init__(self, spec: Spec, environ: dict[str, str], clock: SystemClock, chance: Chance) -> None:
        """Lock the state folder and bind every listener. Raises AlreadyRunning, ConfigError."""
        self._spec = spec
        self._environ = environ
        self._clock = clock
        spec.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        spec.run.chmod(0o700)
        self._lock = Lock(spec.run / "lock")
        self._manager = ServiceManager(environ)
        self._started_at = clock.now()
        self._stage = "starting"
        self._sweep_until: float | None = None
        self._exit_code = 0
        self._sockets: dict[str, socket.socket] = {}
        self._bind()
        self._selector = selectors.DefaultSelector()
        self._wake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._wake, selectors.EVENT_READ, None)
        self._places = Places(spec, chance, self._selector, self._log)

    def serve(self) -> int:
        """Run until told to stop; the exit code for the shell (1 when a child could never be started)."""
        adopt_orphans()
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        for number in HANDLED:
            signal.signal(number, _ignore)  # the wakeup descriptor tells which one came
        while self._stage != "done":
            self._act(self._clock.monotonic())
            self._wait(self._clock.monotonic())
        for listener in self._spec.unix:
            Path(listener.path).unlink(missing_ok=True)
        (self._spec.run / "supervisor.json").unlink(missing_ok=True)
        if self._spec.fleeting and not remove_run_folder(Path(self._spec.state)):
            self._log(f"{self._spec.state} stays: it holds what is not known here")
        self._log("stopped")
        self._lock.release()
        return self._exit_code

    def _act(self, now: float) -> None:
        descriptors = {name: handle.fileno() for name, handle in self._sockets.items()}
        if self._places.tick(now, descriptors, self._environ):
            self._record()
        if self._stage == "draining" and not any(self._places.runs("gateway")):
            self._stage = "stopping"
            self._places.stop("node", now + self._spec.grace_s)
            self._record()
        if self._stage == "stopping" and not any(self._places.runs()):
            self._begin_sweep(signal.SIGTERM, now + _SWEEP_S)
        if self._stage == "sweeping" and self._sweep_until is not None and self._sweep_until <= now:
            self._begin_sweep(signal.SIGKILL, now + 0.1)  # again: what was a grandchild is a child by then

    def _wait(self, now: float) -> None:
        if self._stage == "done":
            return
        moments = list(self._places.due())
        if self._sweep_until is not None:
            moments.append(self._sweep_until)
        timeout = max(0.0, min(moments) - now) if moments else None
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                for number in os.read(self._wake, 512):
                    self._hear(number)
            else:
                self._hear_ready(key.data)

    def _hear(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif number in (signal.SIGTERM, signal.SIGINT):
            if self._stage in ("starting", "running"):
                self._log(f"{signal.Signals(number).name}: draining for at most {self._spec.drain_s:g} s")
                self._begin_stop()
            else:
                self._log("second signal: stopping at once")
                for run in self._places.runs():
                    run.leaving = True
                    run.kill()
                self._begin_sweep(signal.SIGKILL, self._clock.monotonic() + 0.1)
        elif self._stage not in ("starting", "running"):
            self._log(f"{signal.Signals(number).name} ignored: the house is being taken down")
        elif number == signal.SIGHUP:
            self._manager.tell(RELOADING=1, MONOTONIC_USEC=int(self._clock.monotonic() * 1e6))
            for run in self._places.runs():
                if run.ready:  # one that is not has no handler yet, and will read the newest file anyway
                    run.signal(signal.SIGHUP)
            self._manager.tell(READY=1)
        elif number == signal.SIGUSR1:
            self._log("replacing every child")
            self._places.replace_all()

    def _hear_ready(self, run: Run) -> None:
        descriptor = run.ready_fd
        if descriptor is None:
            return
        said = run.read_ready()
        if run.ready_fd is None:
            self._selector.unregister(descriptor)
        if not said:
            return
        self._log(f"{run.spec.name} is ready (pid {run.pid})")
        if self._stage == "starting" and self._places.ready:
            self._stage = "running"
            self._log(f"serving on {', '.join(self._listening[entry.name] for entry in self._spec.tcp)}")
            self._manager.tell(READY=1, MAINPID=os.getpid(), STATUS="serving")
        self._record()

    def _reap(self) -> None:
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                ended = None
                if self._stage == "sweeping":
                    self._stage = "done"
            if ended is None:
                return
            stat = read_stat(ended.si_pid)  # while it is a zombie: its start time is gone once it is reaped
            run = next((run for run in self._places.runs() if run.pid == ended.si_pid), None)
            if run is not None:
                kill_group(run.pid)  # what it started in its own group goes with it
            os.waitpid(ended.si_pid, 0)
            code, name = read_status(ended)
            record = Exit(
                pid=ended.si_pid,
                started_ticks=stat.started_ticks if stat else 0,
                code=code,
                signal=name,
                at=self._clock.now(),
                name=run.spec.name if run else None,
            )
            self._settle(run, record)

    def _settle(self, run: Run | None, ended: Exit) -> None:
        try:
            record_exit(self._spec.run / "exits.jsonl", ended)
        except OSError as error:  # a full disk must not take the house down
            self._log(f"cannot keep the exit of pid {ended.pid}: {error}")
        if run is None:
            return
        serving = self._stage in ("starting", "running")
        hopeless = self._places.bury(run, ended, self._clock.monotonic(), restart=serving)
        if hopeless and self._stage == "starting":
            self._log(f"{run.spec.name} cannot be started; its own output says why. Giving up")
            self._exit_code = 1
            self._begin_stop()
        self._record()

    def _begin_stop(self) -> None:
        self._stage = "draining"
        self._manager.tell(STOPPING=1, STATUS="draining")
        for handle in self._sockets.values():  # so that nobody is accepted once the last gateway stopped accepting
            handle.close()
        self._sockets.clear()
        now = self._clock.monotonic()
        self._places.stop("gateway", now + self._spec.drain_s + self._spec.grace_s)
        self._record()

    def _begin_sweep(self, number: int, until: float) -> None:
        self._stage = "sweeping"
        self._sweep_until = until
        for pid in children_of(os.getpid()):
            try:
                os.killpg(pid, number) if number == signal.SIGKILL else os.kill(pid, number)
            except (ProcessLookupError, PermissionError):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        self._reap()

    def _bind(self) -> None:
        # A house that ended untidily may have gateways that still drain and hold the port for a moment.
        patience = self._clock.monotonic() + (_REBIND_S if (self._spec.run / "supervisor.json").exists() else 0.0)
        for listener in self._spec.tcp:
            while listener.name not in self._sockets:
                try:
                    self._sockets[listener.name] = bind_tcp(listener.name, listener.host, listener.port)
                except ConfigError:
                    if self._clock.monotonic() >= patience:
                        raise
                    self._clock.block(0.1)
        for entry in self._spec.unix:
            self._sockets[entry.name] = bind_unix(Path(entry.path))
        self._listening = {name: _show_address(handle) for name, handle in self._sockets.items()}

    def _record(self) -> None:
        stat = read_stat(os.getpid())
        state = SupervisorState(
            pid=os.getpid(),
            started_ticks=stat.started_ticks if stat else 0,
            started_at=self._started_at,
            stage=self._stage,
            version=self._spec.version,
            listeners=self._listening,
            children=tuple(
                ChildState(
                    name=place.spec.name,
                    role=place.spec.role,
                    pid=place.run.pid if place.run else None,
                    ready=place.run is not None and place.run.ready,
                    restarts=place.restarts,
                    last_exit=place.last_exit,
                )
                for place in self._places.all
            ),
        )
        try:
            record_state(self._spec.run / "supervisor.json", state)
        except OSError as error:
            self._log(f"cannot write supervisor.json: {error}")

    def _log(self, words: str) -> None:
        with contextlib.suppress(OSError):  # a closed terminal must not take the house down
            os.write(2, f"headgate: {words}\n".encode())


def _ignore(number: int, frame: FrameType | None) -> None:
    """A handler must be there for a signal to be woken by; the work is done in the loop."""


def _show_address(handle: socket.socket) -> str:
    name = handle.getsockname()
    if handle.family == socket.AF_UNIX:
        return f"unix:{name}"
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"{host}:{name[1]}"


def main(arguments: list[str] | None = None) -> int:
    """Read the spec (a file's path) and serve it. Exit codes: 75 already running, 78 bad spec or address."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if len(arguments) != 1:
            raise ConfigError("usage: python -m headgate.workers.supervisor SPEC.json")
        try:
            text = Path(arguments[0]).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{arguments[0]}: {error.strerror}") from error
        supervisor = Supervisor(load_spec(text), dict(os.environ), SystemClock(), SystemChance())
    except HeadgateError as error:
        os.write(2, f"headgate: {error.message}\n".encode())
        return os.EX_TEMPFAIL if error.code == "already_running" else os.EX_CONFIG
    return supervisor.serve()


if __name__ == "__main__":
    sys.exit(main())
