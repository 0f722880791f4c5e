"""uvicorn's HTTP/1.1 protocol with bounds that it lacks: header size and count, and how long a head may take."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from headgate.core.errors import HeadgateError
from headgate.gateway.wire.errors import error_bytes

MAX_HEADER_BYTES = 32 * 1024
MAX_HEADERS = 100
HEAD_TIMEOUT_S = 20.0


class HeadersTooLarge(HeadgateError):
    """The request's headers are too many or too large. Send at most 100 headers of together 32 KiB."""

    status, kind, code = 431, "invalid_request_error", "headers_too_large"


class BadHttp(HeadgateError):
    """The request is not valid HTTP/1.1."""

    status, kind, code = 400, "invalid_request_error", "bad_http"


class LimitedProtocol(HttpToolsProtocol):
    """One connection. A head past its bounds is answered with 431 and closed; one that never ends is dropped."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._in_head = True
        self._refused = False
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock of the first head."""
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; count those that belong to a head."""
        if self._refused:
            return
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEADER_BYTES and not self._refused:
            self._refuse(HeadersTooLarge())

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count headers."""
        super().on_header(name, value)
        if len(self.headers) > MAX_HEADERS and not self._refused:
            self._refuse(HeadersTooLarge())

    def on_headers_complete(self) -> None:
        """The head is whole: start the request unless it was refused."""
        self._in_head = False
        self._head_bytes = 0
        self._stop_timer()
        if not self._refused:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Pass the body on, unless its head was refused."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if not self._refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Ready for the next head."""
        self._in_head = True
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no HTTP in the API's own shape."""
        if not self._refused:
            self._refuse(BadHttp())

    def _refuse(self, error: HeadgateError) -> None:
        self._refused = True
        body = error_bytes(error)
        head = (
            f"HTTP/1.1 {error.status} Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        if not self.transport.is_closing():
            self.transport.write(head.encode() + body)
            self.transport.close()

    def _give_up(self) -> None:
        self._head_timer = None
        if self._in_head and not self.transport.is_closing():
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
