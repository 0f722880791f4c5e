"""One HTTP exchange over ASGI: a body read within limits, an answer sent, a client that leaves noticed at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from headgate.core.errors import ClientGone, HeadgateError, MethodNotAllowed, PayloadTooLarge
from headgate.gateway.limited_protocol import ABORT, LEAVE
from headgate.gateway.wire.errors import error_bytes, retry_after

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")
EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")


class Exchange:
    """One request and its answer."""

    __slots__ = ("_receive", "_send", "_stalled_s", "_task", "gone", "scope", "started")

    def __init__(self, scope: Scope, receive: Receive, send: Send, stalled_s: float) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self._stalled_s = stalled_s
        self._task: asyncio.Task[Any] | None = None
        self.started = False
        self.gone = False

    async def read_body(self, limit: int) -> bytes:
        """The whole body. Raises PayloadTooLarge past `limit` bytes, before more is read; ClientGone."""
        for name, value in self.scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > limit:
                raise _too_large(limit)
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.gone = True
                raise ClientGone
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            if not message.get("more_body", False):
                return b"".join((*parts, part)) if parts else part
            parts.append(part)

    def watch(self) -> None:
        """From now on cancel the calling task when the client leaves (`gone` tells it from other cancellations).

        Why by a call from the protocol and not by a task that waits for the ASGI message: that task would be made and
        cancelled for every request.
        """
        self._task = asyncio.current_task()
        self.scope[LEAVE] = self._leave

    def _leave(self) -> None:
        if self._task is not None:
            self.gone = True
            self._task.cancel()

    def unwatch(self) -> None:
        """Stop watching."""
        self._task = None
        self.scope.pop(LEAVE, None)  # else scope and exchange hold each other until the garbage collector comes by

    async def answer(self, status: int, body: bytes, headers: Headers) -> None:
        """Send a whole answer."""
        self.started = True
        length = (b"content-length", b"%d" % len(body))
        await self._send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
        await self._send({"type": "http.response.body", "body": body})

    async def answer_error(self, error: HeadgateError, headers: Headers) -> None:
        """Send an error in OpenAI's shape, with Retry-After where it helps."""
        headers = [*headers, JSON]
        wait = retry_after(error)
        if wait is not None:
            headers.append((b"retry-after", wait.encode()))
        if error.status == 401:
            headers.append((b"www-authenticate", b'Bearer realm="headgate"'))
        if error.status == 413:
            headers.append((b"connection", b"close"))
        if isinstance(error, MethodNotAllowed) and error.allow:
            headers.append((b"allow", error.allow.encode()))
        await self.answer(error.status, error_bytes(error), headers)

    async def start_events(self, headers: Headers) -> None:
        """Begin a stream of server-sent events."""
        self.started = True
        headers = [*headers, EVENTS, (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def piece(self, data: bytes) -> None:
        """Send a piece of a stream. Raises ClientGone when the client leaves it unread for too long."""
        await self._send_in_time({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self, data: bytes = b"") -> None:
        """Send the last piece of a stream. Raises ClientGone as `piece` does."""
        await self._send_in_time({"type": "http.response.body", "body": data, "more_body": False})

    async def _send_in_time(self, message: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(self._stalled_s):
                await self._send(message)
        except TimeoutError:
            self.gone = True
            abort: Callable[[], None] | None = self.scope.get(ABORT)
            if abort is not None:
                abort()  # what it left unread would keep its connection open for as long as it likes
            raise ClientGone from None


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The body is larger than {limit} bytes. Send less, or raise gateway.max_body_bytes.")
