"""One HTTP/1.1 connection to a replica: writes a request, parses its response, lets one reader wait for it.

Owns the bytes of one connection and its limits; knows nothing of pools or addresses.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import httptools

from headgate.core.clock import Clock
from headgate.core.errors import UpstreamFailed

HIGH_WATER = 256 * 1024  # bytes received and not yet taken before the socket is no longer read


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """How long and how much: seconds to connect, to the first byte, between bytes, in the pool; bytes of head and body.

    `body_bytes` bounds `HttpResponse.read()`; a streamed body is bounded by its reader.
    `pooled` is how many idle connections are kept per address.
    """

    connect_s: float = 5.0
    first_byte_s: float = 600.0
    idle_s: float = 120.0
    pooled_s: float = 4.0
    pooled: int = 256
    head_bytes: int = 64 * 1024
    body_bytes: int = 64 * 1024 * 1024


class Stale(Exception):
    """A pooled connection turned out to be closed before a byte of the response came."""


class Connection(asyncio.Protocol):
    """One connection: writes a request, parses its response, lets one reader wait for it."""

    def __init__(self, clock: Clock, limits: HttpLimits) -> None:
        self._loop = asyncio.get_running_loop()
        self.limits = limits
        self.limit_s = limits.first_byte_s
        self.since = 0.0
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.received: list[bytes] = []
        self.head_complete = False
        self.complete = True
        self.keep_alive = True
        self.closed = False
        self.reused = False
        self._clock = clock
        self._parser: Any = httptools.HttpResponseParser(self)
        self._transport: Any = None
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._size = 0
        self._paused = False
        self._touched = False
        self._until_eof = False
        self._head_size = 0

    # -- asked by the client -------------------------------------------------------------------------------------

    def send(self, wire: bytes, first_byte_s: float) -> None:
        """Write a request; its response is awaited from now on."""
        if self.closed:
            raise Stale
        self.headers = []
        self.received = []
        self.status = self._head_size = self._size = 0
        self.head_complete = self.complete = self._touched = False
        self.keep_alive = True
        self.limit_s = first_byte_s
        self._transport.write(wire)

    async def wait(self) -> None:
        """Return when something has arrived; raise what ended the connection, or UpstreamFailed past the limit."""
        if self._error is not None:
            raise self._error
        self.since = self._clock.monotonic()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def take(self) -> bytes:
        """All bytes of the body that have arrived, in one piece."""
        received = self.received
        chunk = received[0] if len(received) == 1 else b"".join(received)
        self.received = []
        self._size = 0
        if self._paused:
            self._paused = False
            if not self.closed:
                self._transport.resume_reading()
        return chunk

    def check_wait(self, now: float) -> None:
        """Fail the connection when its reader has waited longer than it may (seconds of the client's clock)."""
        if self._waiter is not None and now - self.since > self.limit_s:
            self._fail(UpstreamFailed("The replica did not answer in time. Send it again.", code="replica_timeout"))

    def close(self) -> None:
        """Drop the connection at once, whatever is still to come."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    # -- called by the event loop --------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self.complete:  # bytes nobody asked for: this connection cannot be trusted any more
            self.close()
            return
        self._touched = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail(UpstreamFailed("The replica's answer is no valid HTTP. Send it again.", code="replica_broke"))
            return
        if not self.head_complete:
            self._head_size += len(data)
            if self._head_size > self.limits.head_bytes:
                self._fail(UpstreamFailed("The replica's answer has a head too large.", code="replica_broke"))
            return
        if self._size > HIGH_WATER and not self._paused and not self.complete:
            self._paused = True
            self._transport.pause_reading()
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self.complete:
            return
        if self._until_eof and exc is None:
            self.complete = True
            self._wake()
        elif self.reused and not self._touched:
            self._fail(Stale())
        else:
            self._fail(
                UpstreamFailed(
                    "The replica closed the connection before its answer was complete. Send it again.",
                    code="replica_broke",
                )
            )

    # -- called by the parser ------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status < 200:
            self.headers = []
            return
        self.head_complete = True
        self.keep_alive = self._parser.should_keep_alive()
        names = {name.lower() for name, _ in self.headers}
        self._until_eof = not names & {b"content-length", b"transfer-encoding"} and self.status not in (
            204,
            304,
        )

    def on_body(self, body: bytes) -> None:
        self.received.append(body)
        self._size += len(body)

    def on_message_complete(self) -> None:
        if self.status >= 200:
            self.complete = True
            self._until_eof = False

    # -- within ----------------------------------------------------------------------------------------------------

    def _fail(self, error: Exception) -> None:
        self._error = error
        self.close()
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        if self._error is not None:
            waiter.set_exception(self._error)
        else:
            waiter.set_result(None)
