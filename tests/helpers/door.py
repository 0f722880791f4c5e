"""A real door for tests: fake replicas in processes of their own, a routing table made by hand, uvicorn in a thread.

No node stands behind it. Leaving ends every process by its id and removes the folder.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
import uvicorn
import uvloop

from headgate.core.chance import SystemChance
from headgate.core.clock import SystemClock
from headgate.core.errors import UpstreamFailed
from headgate.core.ids import Ids
from headgate.core.principal import Principal
from headgate.core.secret import Secret
from headgate.core.table import PipelineRoute, ReplicaRoute, RoutingTable
from headgate.engines.catalogue import build_engines
from headgate.engines.engine import Launch, ModelOptions
from headgate.engines.http import HttpClient
from headgate.engines.settings import EnginesSettings
from headgate.gateway.access import Access
from headgate.gateway.door import Door
from headgate.gateway.endpoints import Desk
from headgate.gateway.limited_protocol import LimitedProtocol
from headgate.gateway.metrics import Metrics
from headgate.gateway.settings import GatewaySettings
from headgate.metering.ledger import Ledger
from headgate.serving.dispatch import Dispatcher
from headgate.serving.passage import Serving
from headgate.store.database import Database, sqlite_url
from headgate.store.keys import create_key, find_key, revoke_key
from headgate.store.migrate import migrate
from headgate.store.pepper import open_pepper
from tests.helpers.replicas import make_version

CONTEXT = 4096


@dataclass(frozen=True, kw_only=True)
class Process:
    """One fake replica process and the pipelines that it answers."""

    name: str
    pipelines: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    slots: int = 8


def pipeline(name: str, **more: Any) -> PipelineRoute:
    """A route with usual values."""
    values: dict[str, Any] = {
        "name": name,
        "model": name,
        "version": "sha256:" + "0" * 64,
        "engine": "fake",
        "task": "generate",
        "context": CONTEXT,
        "queue": 64,
        "weight": 1.0,
        "first_token_s": 1.0,
        "per_token_s": 0.1,
        "timeout_s": 30.0,
        "created": 1_700_000_000,
    }
    return PipelineRoute(**(values | more))


PROCESSES = (
    Process(name="a", pipelines=("chat", "embed"), settings={"answer_tokens": 8, "magic": True}),
    Process(name="b", pipelines=("chat",), settings={"answer_tokens": 8, "magic": True}),
    Process(name="slow", pipelines=("slow",), settings={"answer_tokens": 400, "tokens_per_s": 50}, slots=2),
    Process(name="broken", pipelines=("broken",), settings={"error_status": 500}),
    Process(name="open", pipelines=("nonsense",), settings={"fail_open": True}),
)
PIPELINES = (
    pipeline("chat"),
    pipeline("embed", task="embed"),
    pipeline("slow", queue=1),
    pipeline("broken"),
    pipeline("nonsense"),
    pipeline("asleep", timeout_s=0.3, wake_s=0.1),
    pipeline("full", queue=0, wake_s=7.0),
    pipeline("blocked", blocked="its model does not fit this machine"),
)


class OpenDoor:
    """A door that takes requests at `url`; what stands behind it can be looked at."""

    def __init__(self, folder: Path, settings: GatewaySettings) -> None:
        self.folder = folder
        self.settings = settings
        self.clock = SystemClock()
        self.chance = SystemChance()
        self.ids = Ids(self.clock, self.chance)
        self.database = Database(sqlite_url(folder / "headgate.db"))
        migrate(self.database)
        self.pepper = open_pepper(self.database, folder, chance=self.chance, clock=self.clock)
        self.keys = {role: self.make_key(role) for role in ("admin", "user", "scrape")}
        self.dispatcher = Dispatcher(self.clock)
        self.ledger = Ledger(self.database, self.ids, self.clock, gateway="g1")
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.sockets: dict[str, str] = {}
        self.server: uvicorn.Server | None = None
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.loop: asyncio.AbstractEventLoop | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="door", daemon=True)
        self._failure: BaseException | None = None

    # -- what tests ask --------------------------------------------------------------------------------------------

    @property
    def key(self) -> str:
        """A key of role user."""
        return self.keys["user"]

    def make_key(self, role: Any) -> str:
        """A new key of that role."""
        key, _ = create_key(
            self.database, self.pepper, ids=self.ids, clock=self.clock, chance=self.chance, user="me", role=role
        )[:2]
        return key.reveal()

    def revoke(self, key: str) -> None:
        """Revoke a key."""
        revoke_key(self.database, key[:9], clock=self.clock)

    def in_flight(self) -> int:
        """Requests that hold a slot or wait for one."""
        return sum(lane.in_flight + len(lane.waiting) for lane in self.dispatcher.lanes)

    def connections(self) -> int:
        """Open connections of clients."""
        assert self.server is not None
        return len(self.server.server_state.connections)

    def busy_slots(self, name: str) -> int:
        """What the replica process itself counts as busy."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(self.sockets[name])
            sock.sendall(b"GET /slots HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer s3cret\r\n\r\n")
            body = sock.recv(65536).partition(b"\r\n\r\n")[2]
        return sum(slot["is_processing"] for slot in orjson.loads(body))

    def wait_idle(self, limit_s: float = 5.0) -> float:
        """Return once nothing is in flight and every ledger row is settled: the seconds it took."""
        return self.wait_for(lambda: self.in_flight() == 0 and self.ledger.open_rows == 0, limit_s)

    def wait_for(self, condition: Callable[[], bool], limit_s: float = 5.0) -> float:
        """Return once the condition holds: the seconds it took."""
        start = time.monotonic()
        while not condition():
            assert time.monotonic() - start < limit_s, "it did not come about in time"
            time.sleep(0.002)
        return time.monotonic() - start

    # -- its life --------------------------------------------------------------------------------------------------

    def start(self, processes: tuple[Process, ...], pipelines: tuple[PipelineRoute, ...]) -> None:
        """Start replicas and door; return when both take requests."""
        self._processes, self._pipelines = processes, pipelines
        for process in processes:
            self._start_child(process)
        self._thread.start()
        assert self._started.wait(60), "the door did not open"
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Close the door, end every process, forget everything."""
        if self.server is not None:
            self.server.should_exit = True
        self._thread.join(20)
        for child in self.children.values():
            if child.poll() is None:
                os.kill(child.pid, signal.SIGKILL)
            child.wait()
        self.listener.close()
        assert self.ledger.close() == 0
        self.database.close()
        assert not self._thread.is_alive()

    def _start_child(self, process: Process) -> None:
        engine = build_engines(EnginesSettings(), HttpClient(self.clock))["fake"]
        path = self.sockets[process.name] = str(self.folder / f"{process.name}.sock")
        options = ModelOptions(context=CONTEXT, slots=process.slots, settings=process.settings)
        command = engine.command(
            Launch(
                replica=process.name,
                version=make_version("fake"),
                options=options,
                address=f"unix:{path}",
                secret=Secret("s3cret"),
            )
        )
        assert command is not None
        environment = {**os.environ, **command.environment}
        child = subprocess.Popen(command.argv, stdin=subprocess.PIPE, env=environment, start_new_session=True)
        assert child.stdin is not None
        child.stdin.write(command.stdin)
        child.stdin.close()
        self.children[process.name] = child

    def _run(self) -> None:
        try:
            uvloop.run(self._serve())
        except BaseException as error:
            self._failure = error
            self._started.set()
            raise

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        client = HttpClient(self.clock)
        engines = build_engines(EnginesSettings(), client)
        for process in self._processes:
            await self._await_socket(process.name)
        self.apply(1)
        self.ledger.start()
        desk = Desk(
            serving=Serving(dispatcher=self.dispatcher, engines=engines, ledger=self.ledger, clock=self.clock),
            access=Access(self._find, self.pepper, self.clock, self.chance),
            metrics=Metrics(self.dispatcher),
            settings=self.settings,
            ids=self.ids,
            clock=self.clock,
        )
        self.door = Door(desk)
        config = uvicorn.Config(
            self.door,  # type: ignore[arg-type]
            http=LimitedProtocol,
            loop="none",
            lifespan="off",
            interface="asgi3",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=self.settings.max_connections,
            timeout_graceful_shutdown=1,
        )
        self.server = _Server(config)
        sweeper = self.loop.create_task(self._sweep())
        self._started.set()
        await self.server.serve(sockets=[self.listener])
        sweeper.cancel()
        await client.close()

    def apply(self, number: int, without: frozenset[str] = frozenset()) -> None:
        """Make and take a routing table; replicas of the processes in `without` are left out."""
        replicas = {
            f"{process.name}-{name}": ReplicaRoute(
                id=f"{process.name}-{name}",
                pipeline=name,
                version="sha256:" + "0" * 64,
                engine="fake",
                address=f"unix:{self.sockets[process.name]}",
                secret=Secret("s3cret"),
                epoch=1,
                slots=process.slots,
                device="cpu:0",
                pool="cpu",
                share=1.0,
                state="ready",
            )
            for process in self._processes
            for name in process.pipelines
            if process.name not in without
        }
        pipelines = {route.name: replace(route) for route in self._pipelines}
        self.dispatcher.apply(RoutingTable(node="n1", number=number, pipelines=pipelines, replicas=replicas))

    async def _await_socket(self, name: str) -> None:
        end = time.monotonic() + 30
        while True:
            try:
                _, writer = await asyncio.open_unix_connection(self.sockets[name])
                writer.close()
                return
            except OSError:
                assert self.children[name].poll() is None, "a replica ended while it started"
                if time.monotonic() > end:
                    raise UpstreamFailed("a replica did not listen in time") from None
                await asyncio.sleep(0.02)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            self.dispatcher.sweep()

    def _find(self, key_hash: str) -> Principal | None:
        row = find_key(self.database, key_hash)
        return row.principal if row is not None and row.active(self.clock.now()) else None


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Threads take no signals."""
        yield


@contextmanager
def open_door(
    processes: tuple[Process, ...] = PROCESSES,
    pipelines: tuple[PipelineRoute, ...] = PIPELINES,
    **settings: Any,
) -> Iterator[OpenDoor]:
    """A door with those replicas and pipelines, closed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="hgd", dir="/tmp"))
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    door = OpenDoor(folder, GatewaySettings.model_validate(settings))
    try:
        door.start(processes, pipelines)
        yield door
    finally:
        door.stop()
        shutil.rmtree(folder, ignore_errors=True)
