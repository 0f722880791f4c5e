"""uvicorn's HTTP/1.1 protocol with bounds that it lacks: how large a head is, how long a request takes to arrive,
how many connections there are. What it refuses itself is told in the API's own shape."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from headgate.core.errors import HeadgateError, Unavailable
from headgate.gateway.wire.errors import error_bytes, retry_after

MAX_HEADER_BYTES = 32 * 1024
MAX_HEADERS = 100
ARRIVAL_S = 20.0  # how long a head may take, and a body beside the time that its bytes take
BODY_BYTES_PER_S = 16 * 1024  # a body slower than this is given up
_UPGRADE = re.compile(rb"\nupgrade[ \t]*:", re.IGNORECASE)
LAST_S = 1.0  # how long a request may be on its way to a gateway that leaves, on a connection that had none yet
_LOOK_S = 5.0  # how often a connection looks whether it waits for too long

ABORT = "headgate.abort"
LEAVE = "headgate.leave"  # where a request's handler puts what is to be called when its client leaves
"""Where a request's scope holds the function that drops its connection at once."""


class HeadersTooLarge(HeadgateError):
    """The request's headers are too many or too large. Send at most 100 headers of together 32 KiB."""

    status, kind, code = 431, "invalid_request_error", "headers_too_large"


class BadHttp(HeadgateError):
    """The request is not valid HTTP/1.1. Check the request line, the headers and the length of the body."""

    status, kind, code = 400, "invalid_request_error", "bad_http"


class TooSlow(HeadgateError):
    """The request took too long to arrive. Send it in one go."""

    status, kind, code = 408, "invalid_request_error", "request_timeout"


class LimitedProtocol(HttpToolsProtocol):
    """One connection. What is past its bounds is answered in OpenAI's shape, and the connection closed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._most_connections = self.limit_concurrency
        self.limit_concurrency = None  # uvicorn's own answer is plain text, and for old connections too
        self._surplus = False
        self._in_head = self._in_body = False
        self._head_bytes = self._body_bytes = 0
        self._refused = False
        self._leaving = False
        self._cycles: list[Any] = []  # requests that are not answered yet: more than one where a client pipelines
        self._awaited_since: float | None = None  # loop time since when a request is incomplete
        self._look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock of the first head."""
        super().connection_made(transport)
        self.transport: Any = _CorkedTransport(transport, self.loop)
        self._surplus = self._most_connections is not None and len(self.connections) > self._most_connections
        self._awaited_since = self.loop.time()
        self._look = self.loop.call_later(_LOOK_S, self._look_at_clock)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        if self._look is not None:
            self._look.cancel()
            self._look = None
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        for cycle in self._cycles:
            leave: Callable[[], None] | None = cycle.scope.get(LEAVE)
            if leave is not None and not cycle.response_complete:
                leave()

    def data_received(self, data: bytes) -> None:
        """Take bytes; count those of a head that is not complete."""
        if self._refused:
            return
        self._unset_keepalive_if_required()
        if b"pgrade" in data and not self._in_body:
            data = _decline_upgrade(data)
        try:
            parser: Any = self.parser
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse(BadHttp())
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEADER_BYTES:
                self._refuse(HeadersTooLarge())

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head = True
        self._head_bytes = self._body_bytes = 0
        if self._awaited_since is None:
            self._awaited_since = self.loop.time()
        super().on_message_begin()
        self.scope[ABORT] = self.transport.abort  # type: ignore[literal-required]

    def on_headers_complete(self) -> None:
        """The head is whole: start the request unless it was refused or goes past the bounds."""
        self._in_head, self._in_body = False, True
        if self._refused:
            return
        size, host = len(self.url), False
        for name, value in self.headers:
            size += len(name) + len(value)
            if name == b"host":
                host = True
        # Why here and not for each header: a head that is not whole yet is bounded by its bytes, in data_received.
        if len(self.headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
            self._refuse(HeadersTooLarge())
            return
        parser: Any = self.parser
        if not host and parser.get_http_version() == "1.1":
            self._refuse(BadHttp("The request has no Host header; HTTP/1.1 demands one."))
            return
        if self._surplus:
            self.app: Any = refuse_busy  # for good: its answer ends the connection
        super().on_headers_complete()
        self._cycles = [cycle for cycle in self._cycles if not cycle.response_complete]
        cycle: Any = self.cycle
        cycle.keep_alive = cycle.keep_alive and not self._leaving
        self._cycles.append(cycle)

    def on_body(self, body: bytes) -> None:
        """Pass the body on, unless its head was refused."""
        if not self._refused:
            self._body_bytes += len(body)
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._in_body = False
        self._awaited_since = None
        if not self._refused:
            super().on_message_complete()

    def shutdown(self) -> None:
        """Take no further request than those under way; the gateway leaves.

        Why one that is still on its way is waited for: whoever has just connected has done nothing that HTTP would let
        us end without an answer, as it does a connection that rests between two requests.
        """
        self._leaving = True
        if cast("Any", self.cycle) is None or self._in_head:
            self.loop.call_later(LAST_S, self._close_unused)
        else:
            super().shutdown()

    def _close_unused(self) -> None:
        cycle = cast("Any", self.cycle)
        if not self._in_head and (cycle is None or cycle.response_complete):
            self.transport.close()

    def _refuse(self, error: HeadgateError) -> None:
        """Answer with `error` and close; where an earlier answer is under way, let that one end instead."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        cycle = cast("Any", self.cycle)  # None before the first request
        busy = cycle is not None and not cycle.response_complete
        if busy and (self.pipeline or getattr(cycle, "response_started", False)):
            self.transport.close()
        elif busy and not getattr(cycle, "more_body", True):
            self._cycles[-1].keep_alive = False  # the request before the garbage is whole: it gets its answer
        else:
            self.transport.write(_closing_answer(error))
            self.transport.close()

    def _look_at_clock(self) -> None:
        """Give up a request that arrives too slowly, and one that never begins."""
        self._look = self.loop.call_later(_LOOK_S, self._look_at_clock)
        since = self._awaited_since
        if since is None or self._refused:
            return
        limit_s = ARRIVAL_S if self._in_head else ARRIVAL_S + self._body_bytes / BODY_BYTES_PER_S
        if self.loop.time() - since <= limit_s:
            return
        cycle = cast("Any", self.cycle)
        if cycle is not None and not cycle.response_complete and cycle.response_started:
            return  # an early answer (401, 413) is on its way while its body still comes
        if not (self._in_head or self._in_body):
            self.transport.close()  # not a byte came: there is nothing to answer
            return
        self._refuse(TooSlow())


class _CorkedTransport:
    """A transport that holds a response's head until its body comes, so that both go out in one system call.

    uvicorn writes them one after the other, and each write is a packet of its own. A head whose body does not come in
    the same turn of the event loop is sent at its end.
    """

    __slots__ = ("_held", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def write(self, data: bytes) -> None:
        """Send `data`, or hold it when it is the head of a response."""
        if self._held:
            data, self._held = self._held + data, b""
        elif data.startswith(b"HTTP/1.1 ") and data.endswith(b"\r\n\r\n"):
            self._held = data
            self._loop.call_soon(self._flush)
            return
        self._transport.write(data)

    def close(self) -> None:
        """Close once everything is sent, what is held included."""
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)


async def refuse_busy(
    scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """The ASGI application behind a connection that is one too many."""
    error = too_many_connections()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    body = error_bytes(error)
    headers += [(b"retry-after", (retry_after(error) or "1").encode()), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def too_many_connections() -> Unavailable:
    """What a connection past `gateway.max_connections` is told."""
    return Unavailable(
        "This gateway has too many connections. Retry after the time given, use fewer, or raise "
        "gateway.max_connections.",
        retry_after_s=1.0,
        code="too_many_connections",
    )


def _decline_upgrade(data: bytes) -> bytes:
    """`data`, which begins with a head or a part of one, without its offer to change the protocol.

    Why: Java's HttpClient offers HTTP/2 with every first POST; the parser would take the body for that other protocol.
    An offer that is not seen is declined, which is what RFC 9110 section 7.8 lets a server do.
    """
    head, end, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"\nx-declined:", head) + end + rest


def _closing_answer(error: HeadgateError) -> bytes:
    body = error_bytes(error)
    try:
        phrase = HTTPStatus(error.status).phrase
    except ValueError:
        phrase = ""
    head = (
        f"HTTP/1.1 {error.status} {phrase}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
