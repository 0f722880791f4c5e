"""A small HTTP/1.1 server for our own replicas (fake, classic): one socket, one secret, answers whole or as events.

Owns connections, the secret, the count of work in flight and a clean end; knows nothing of what is answered.

Why not uvicorn: the fake engine is the yardstick of the gateway's benchmarks and must be much faster than the gateway;
and a replica of a few megabytes is what a classic model is for.
"""

from __future__ import annotations

import asyncio
import ctypes
import hmac
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httptools

BODY_BYTES_MAX = 64 * 1024 * 1024
_PR_SET_DUMPABLE = 4  # Source: prctl(2)
_HEAD_JSON = b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_HEAD_EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_REASONS = {200: b"OK", 400: b"Bad Request", 401: b"Unauthorized", 404: b"Not Found"}


class Reply:
    """The way back for one request. `gone` is set when the caller has closed the connection."""

    __slots__ = ("_connection", "gone")

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self.gone = False

    def json(self, status: int, body: bytes) -> None:
        """Answer with a whole JSON body."""
        self._connection.write(_HEAD_JSON % (status, _REASONS.get(status, b"Status"), len(body)) + body)
        self._connection.finish()

    def all_events(self, events: bytes) -> None:
        """Answer with all server-sent events in one write."""
        self._connection.write(b"%s%x\r\n%s\r\n0\r\n\r\n" % (_HEAD_EVENTS, len(events), events))
        self._connection.finish()

    def start_events(self) -> None:
        """Begin an answer of server-sent events."""
        self._connection.write(_HEAD_EVENTS)

    def events(self, events: bytes) -> None:
        """Send some server-sent events."""
        self._connection.write(b"%x\r\n%s\r\n" % (len(events), events))

    def end_events(self) -> None:
        """End an answer of server-sent events."""
        self._connection.write(b"0\r\n\r\n")
        self._connection.finish()


Handler = Callable[[str, bytes, Reply], Awaitable[None] | None]


@dataclass(slots=True, kw_only=True)
class Work:
    """Requests in flight."""

    running: int = 0


class ReplicaServer:
    """Serves `handler(path, body, reply)` to callers who present the secret; GET /health needs none.

    A handler that answers at once returns None; one that takes time returns a coroutine, which is cancelled when the
    caller leaves.
    """

    def __init__(self, handler: Handler, secret: str) -> None:
        self.handler = handler
        self.bearer = f"Bearer {secret}".encode()
        self.work = Work()

    def connection(self) -> asyncio.Protocol:
        """A new connection: the protocol factory for `loop.create_server` and `create_unix_server`."""
        return _Connection(self)

    async def serve(self, host: str, port: int | None) -> None:
        """Serve until SIGTERM or SIGINT, on `host` at `port`, or on the Unix socket `host`, which is removed then."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        if port is not None:
            server = await loop.create_server(self.connection, host, port, backlog=1024)
        else:
            Path(host).unlink(missing_ok=True)
            server = await loop.create_unix_server(self.connection, host, backlog=1024)
        await stop.wait()
        if port is None:
            Path(host).unlink(missing_ok=True)
        server.close()


def guard_process() -> None:
    """Keep this process's memory (secret, prompts) from core dumps and other processes; new files are ours only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    os.umask(0o077)


def run_replica(main: Callable[[], Any]) -> None:
    """Run the coroutine of `main` on uvloop to its end, then leave at once."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


class _Connection(asyncio.Protocol):
    """One caller: reads requests one after another, gives each to the handler."""

    def __init__(self, server: ReplicaServer) -> None:
        self._server = server
        self._parser: Any = httptools.HttpRequestParser(self)
        self._transport: Any = None
        self._path = ""
        self._body: list[bytes] = []
        self._size = 0
        self._allowed = False
        self._reply: Reply | None = None
        self._task: asyncio.Task[None] | None = None

    # -- asked by Reply ------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def finish(self) -> None:
        if self._reply is not None:
            self._reply = None
            self._task = None
            self._server.work.running -= 1

    # -- called by the event loop --------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        reply, task = self._reply, self._task
        self.finish()
        if reply is not None:
            reply.gone = True
        if task is not None:
            task.cancel()

    # -- called by the parser ------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._path = ""
        self._body = []
        self._size = 0
        self._allowed = False

    def on_url(self, url: bytes) -> None:
        self._path += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"authorization":
            self._allowed = hmac.compare_digest(value, self._server.bearer)
        elif name == b"expect":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > BODY_BYTES_MAX:
            self._transport.abort()
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._reply is not None:  # one request at a time; nobody of ours sends another before its answer
            self._transport.abort()
            return
        reply = self._reply = Reply(self)
        self._server.work.running += 1
        if not self._allowed and self._path != "/health":
            reply.json(401, b'{"error":{"message":"Invalid API Key","type":"authentication_error","code":401}}')
            return
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        try:
            waiting = self._server.handler(self._path, body, reply)
        except Exception:
            self._transport.abort()
            raise
        if waiting is not None:
            self._task = asyncio.ensure_future(self._attend(waiting))

    async def _attend(self, waiting: Awaitable[None]) -> None:
        try:
            await waiting
        finally:
            if self._task is not None and self._reply is not None:  # it failed before its answer was complete
                self._transport.abort()
