"""The gateway process: serves inherited sockets until told to stop, and keeps its link to the node.

SIGTERM drains: nothing new is accepted, streams finish within `drain_s`. Everything is built by app.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import uvicorn

from headgate.core.clock import Clock
from headgate.gateway.door import Door, LocalDoor
from headgate.gateway.limited_protocol import LimitedProtocol
from headgate.gateway.settings import GatewaySettings
from headgate.serving.dispatch import Dispatcher
from headgate.serving.node_link import NodeLink

log = logging.getLogger(__name__)

REPORT_S = 0.25  # how often a gateway reports its load


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayProcess:
    """One gateway, built and not yet running. `wake` is set by the dispatcher to have its load reported at once."""

    id: str
    pid: int
    door: Door
    dispatcher: Dispatcher
    link: NodeLink
    settings: GatewaySettings
    clock: Clock
    wake: asyncio.Event

    async def run(
        self, sockets: Mapping[str, socket.socket], ready: Callable[[], None], close: Callable[[], Awaitable[None]]
    ) -> None:
        """Serve until SIGTERM or SIGINT; `ready` is called once requests are accepted, `close` after the last."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)  # logs are appended to; there is nothing to reopen
        tasks: list[asyncio.Task[Any]] = [loop.create_task(self.link.run()), loop.create_task(self._report())]
        servers = self._servers(sockets)
        serving = [loop.create_task(server.serve(sockets=[listener])) for server, listener in servers]
        tasks.append(loop.create_task(self._tell_ready(ready)))
        stopping = loop.create_task(stop.wait())
        await asyncio.wait([stopping, *serving], return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done():
            log.error("a server ended by itself; this gateway stops")
        stopping.cancel()
        log.info("draining")
        for server, _ in servers:
            server.should_exit = True
        await asyncio.gather(*serving)
        self._send_report()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await close()

    def _servers(self, sockets: Mapping[str, socket.socket]) -> list[tuple[_Server, socket.socket]]:
        servers: list[tuple[_Server, socket.socket]] = []
        for name, listener in sockets.items():
            local = name == "admin"
            tls = None if local else self.settings.tls
            config = uvicorn.Config(
                LocalDoor(self.door) if local else self.door,  # pyright: ignore[reportArgumentType]
                http=LimitedProtocol,
                loop="none",
                lifespan="off",
                interface="asgi3",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=True,
                proxy_headers=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=int(self.settings.drain_s) or 1,
                limit_concurrency=None if local else self.settings.max_connections,
                ssl_certfile=tls.certificate if tls else None,
                ssl_keyfile=tls.key if tls else None,
            )
            servers.append((_Server(config), listener))
        return servers

    async def _tell_ready(self, ready: Callable[[], None]) -> None:
        """Ready means: the node's table is here and requests are accepted."""
        while self.dispatcher.table is None:
            await self.clock.sleep(0.01)
        ready()

    async def _report(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REPORT_S):
                    await self.wake.wait()
            self.wake.clear()
            try:
                self.dispatcher.sweep()
                self._send_report()
            except Exception:
                log.exception("load could not be reported")  # the next turn tries again

    def _send_report(self) -> None:
        self.link.report(self.dispatcher.report(self.id, self.pid))


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers: the process has its own."""

    @contextlib.contextmanager
    def capture_signals(self):
        yield
