"""A supervisor with small child programs, for tests of real processes. Everything it starts ends with it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from headgate.workers.proc import children_of, is_running, read_stat
from headgate.workers.spec import Spec, Supervised, TcpListener, UnixListener, dump_spec
from headgate.workers.supervisor_state import SupervisorState, load_state

GATEWAY = """
import os, select, signal, sys, time
from headgate.workers.inherited import load_sockets, report_ready
sockets = load_sockets()
draining = []
signal.signal(signal.SIGTERM, lambda *_: draining.append(1))
signal.signal(signal.SIGHUP, lambda *_: print("reload", os.getpid(), flush=True))
listening = sockets["gateway"]
report_ready()
busy = None
while True:
    if draining:
        listening.close()
    if draining and busy is None:
        sys.exit(0)
    watched = ([] if draining else [listening]) + ([busy] if busy else [])
    try:
        readable, _, _ = select.select(watched, [], [], 0.05)
    except InterruptedError:
        continue
    for handle in readable:
        if handle is listening:
            try:
                caller, _ = listening.accept()
            except BlockingIOError:
                continue
            caller.setblocking(True)
            asked = caller.recv(100)
            if asked == b"stream":
                caller.sendall(b"begun ")
                busy = caller
            else:
                caller.sendall(str(os.getpid()).encode())
                caller.close()
        else:
            if busy.recv(100):
                busy.sendall(b"ended")
            busy.close()
            busy = None
"""

NODE = """
import os, signal, subprocess, sys, time
from pathlib import Path
from headgate.workers.inherited import report_ready
run = Path(sys.argv[1])
def stop(*_):
    for path in run.glob("orphan-*"):
        try:
            os.kill(int(path.name.split("-")[1]), signal.SIGTERM)
        except ProcessLookupError:
            pass
    print("stopped for good", flush=True)
    os._exit(0)
def leave(*_):
    print("left", flush=True)
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGUSR2, leave)
signal.signal(signal.SIGHUP, lambda *_: print("reload", os.getpid(), flush=True))
if not list(run.glob("orphan-*")):
    code = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); signal.pause()"
    child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    (run / f"orphan-{child.pid}").touch()
report_ready()
while True:
    signal.pause()
"""

ADOPTING_NODE = """
import asyncio, os, signal, sys
from pathlib import Path
from headgate.core.clock import SystemClock
from headgate.core.model import Version
from headgate.core.secret import Secret
from headgate.engines.engine import Command, Launch, ModelOptions
from headgate.workers.inherited import report_ready
from headgate.workers.record import load_replicas
from headgate.workers.replica import ReplicaProcess, prepare_host
from headgate.workers.settings import WorkerSettings
from headgate.workers.spawn import Placement

CHILD = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(6)); signal.pause()"

async def yes(record):
    return True

async def main():
    run = Path(sys.argv[1])
    host = prepare_host(run, run.parent / "logs", SystemClock(), WorkerSettings())
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    loop.add_signal_handler(signal.SIGUSR2, os._exit, 0)
    found = load_replicas(run)
    if found:
        process = await ReplicaProcess.adopt(host, found[0], yes)
        print("adopted", flush=True)
    else:
        version = Version(digest="sha256:0", format="fake", task="generate", architecture="", parameters=None,
                          context=None, bytes=0, path="")
        launch = Launch(replica="r", version=version, options=ModelOptions(context=1, slots=1),
                        address=f"unix:{run / 'r.sock'}", secret=Secret("hush"))
        command = Command(argv=(sys.executable, "-c", CHILD))
        process = await ReplicaProcess.start(host, command, launch, epoch=1, placement=Placement(cores=()))
        (run / f"orphan-{process.record.pid}").touch()
        print("started", flush=True)
    report_ready()
    ends = asyncio.ensure_future(process.wait())
    asked = asyncio.ensure_future(stopping.wait())
    await asyncio.wait((ends, asked), return_when=asyncio.FIRST_COMPLETED)
    ended = await process.stop()
    print("replica", ended.describe(), flush=True)
    if not asked.done():
        await asked

asyncio.run(main())
"""

CRASH = "import sys; sys.exit(4)"
IGNORE = """
import signal
from headgate.workers.inherited import report_ready
signal.signal(signal.SIGTERM, signal.SIG_IGN)
report_ready()
while True:
    signal.pause()
"""


class House:
    """One supervisor over a temporary state folder. `entries` are children by name: (role, program text)."""

    def __init__(self, state: Path, **options: Any) -> None:
        self.state = state
        self.run = state / "run"
        self.log = state / "children.log"
        self.output = state / "supervisor.log"
        state.mkdir(exist_ok=True)
        self._options = {"drain_s": 5.0, "grace_s": 2.0, "ready_s": 20.0, **options}
        self._seen: set[int] = set()
        self.process: subprocess.Popen[bytes] | None = None

    def write_spec(self, **programs: str) -> Path:
        """The spec file for children whose names begin with their role."""
        children = [
            Supervised(
                name=name.replace("_", "-"),
                role=name.split("_")[0],
                argv=(sys.executable, "-c", text, str(self.run)),
                sockets=("gateway", "admin") if name.startswith("gateway") else (),
                log=str(self.log),
                leave_signal="SIGUSR2" if name.startswith("node") else "SIGTERM",
            )
            for name, text in programs.items()
        ]
        spec = Spec(
            state=str(self.state),
            version="test",
            tcp=(TcpListener("gateway", "127.0.0.1", 0),),
            unix=(UnixListener("admin", str(self.run / "admin.sock")),),
            children=tuple(children),
            **self._options,
        )
        path = self.state / "spec.json"
        path.write_text(dump_spec(spec))
        return path

    def start(self, environ: dict[str, str] | None = None, **programs: str) -> None:
        """Start the supervisor and wait until it serves."""
        self.begin(environ, **programs)
        self.wait_for(lambda: self.stage == "running")

    def begin(self, environ: dict[str, str] | None = None, **programs: str) -> None:
        """Start the supervisor."""
        path = self.write_spec(**programs)
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "headgate.workers.supervisor", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(environ or {})},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def account(self) -> SupervisorState | None:
        return load_state(self.run / "supervisor.json")

    @property
    def stage(self) -> str | None:
        account = self.account
        return account.stage if account else None

    def child(self, name: str) -> int | None:
        """The pid of the ready child of that name; None while there is none."""
        account = self.account
        for child in account.children if account else ():
            if child.name == name and child.ready and child.pid is not None:
                self._seen.add(child.pid)
                return child.pid
        return None

    def restarts(self, name: str) -> int:
        account = self.account
        return sum(child.restarts for child in account.children if child.name == name) if account else 0

    @property
    def orphan(self) -> int:
        (path,) = self.run.glob("orphan-*")
        return int(path.name.split("-")[1])

    def connect(self) -> socket.socket:
        """A connection to the gateway's port."""
        account = self.account
        assert account is not None
        host, _, port = account.listeners["gateway"].rpartition(":")
        return socket.create_connection((host, int(port)), timeout=10)

    def ask(self) -> int:
        """The pid of the gateway that answers one request."""
        with self.connect() as connection:
            connection.sendall(b"who")
            return int(connection.recv(100))

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def end(self, timeout_s: float = 15.0) -> int:
        """The supervisor's exit code, once it has ended."""
        assert self.process is not None
        return self.process.wait(timeout_s)

    def wait_for(self, holds: Callable[[], object], timeout_s: float = 15.0) -> None:
        """Return once `holds()` is true; fail with the logs when it never is."""
        until = time.monotonic() + timeout_s
        while not holds():
            if time.monotonic() > until:
                raise AssertionError(f"it never came true\n{self.said}\n{self.children_said}")
            time.sleep(0.01)

    @property
    def said(self) -> str:
        return self.output.read_text() if self.output.exists() else ""

    @property
    def children_said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def descendants(self) -> list[int]:
        """Everything that runs below the supervisor."""
        found, new = [], [self.pid]
        while new:
            new = [child for parent in new for child in children_of(parent)]
            found += new
        return found

    def tear_down(self) -> None:
        """Kill all that was ever seen of this house, by process group."""
        if self.process is None:
            return
        left = [self.pid, *self.descendants(), *self._seen]
        left += [int(path.name.split("-")[1]) for path in self.run.glob("orphan-*")]
        for pid in left:
            stat = read_stat(pid)
            if stat is not None and self._is_ours(pid):
                for send in (os.killpg, os.kill):
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        send(pid, signal.SIGKILL)
        self.process.wait(10)

    def _is_ours(self, pid: int) -> bool:
        if pid == self.pid:
            return self.process is not None and self.process.poll() is None
        try:
            return str(self.state).encode() in Path(f"/proc/{pid}/cmdline").read_bytes() or bool(
                list(self.run.glob(f"orphan-{pid}"))
            )
        except OSError:
            return False


@contextlib.contextmanager
def a_house(state: Path, **options: Any) -> Iterator[House]:
    """A house that is torn down at the end."""
    house = House(state, **options)
    try:
        yield house
    finally:
        house.tear_down()


def gone(pid: int, ticks: int) -> bool:
    """Whether that very process no longer runs."""
    return not is_running(pid, ticks)
