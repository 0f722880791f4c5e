"""A gateway that leaves: a request that is on its way is answered, and nobody is waited for in vain."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import uvicorn

from headgate.gateway import limited_protocol
from headgate.gateway.limited_protocol import LimitedProtocol

REQUEST = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"


async def _answer(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self):
        yield


class Leaving:
    """A server that can be told to leave; `connect` gives (reader, writer)."""

    async def __aenter__(self):
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            _answer, http=LimitedProtocol, loop="none", lifespan="off", interface="asgi3", ws="none", log_config=None,
            timeout_graceful_shutdown=5,
        )  # fmt: skip
        self.server = _Server(config)
        self.task = asyncio.create_task(self.server.serve(sockets=[listener]))
        while not self.server.started:
            await asyncio.sleep(0.01)
        return self

    async def __aexit__(self, *error):
        self.server.should_exit = True
        await self.task

    async def connect(self):
        before = len(self.server.server_state.connections)
        streams = await asyncio.open_connection("127.0.0.1", self.port)
        while len(self.server.server_state.connections) == before:
            await asyncio.sleep(0.01)
        return streams

    async def leave(self) -> None:
        """Return when it has begun to."""
        self.server.should_exit = True
        while any(one.is_serving() for one in self.server.servers):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)


async def test_the_first_request_of_a_connection_is_answered_and_is_its_last():
    async with Leaving() as door:
        fresh, begun = await door.connect(), await door.connect()
        begun[1].write(REQUEST[:9])
        await asyncio.sleep(0.05)
        await door.leave()
        for (reader, writer), rest in ((fresh, REQUEST), (begun, REQUEST[9:])):
            writer.write(rest)
            told = (await asyncio.wait_for(reader.read(), 5)).lower()
            assert told.startswith(b"http/1.1 200") and b"connection: close" in told and told.endswith(b"ok")
            writer.close()


async def test_a_begun_request_on_a_connection_that_was_of_use_is_answered_too():
    async with Leaving() as door:
        reader, writer = await door.connect()
        writer.write(REQUEST)
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        writer.write(REQUEST[:9])
        await asyncio.sleep(0.05)
        await door.leave()
        writer.write(REQUEST[9:])
        assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_who_rests_between_two_requests_is_closed_at_once_and_who_never_asks_a_little_later(monkeypatch):
    monkeypatch.setattr(limited_protocol, "LAST_S", 0.3)
    async with Leaving() as door:
        used, silent = await door.connect(), await door.connect()
        used[1].write(REQUEST)
        await used[0].readuntil(b"ok")
        await door.leave()
        assert await asyncio.wait_for(used[0].read(), 0.2) == b""
        assert door.server.server_state.connections, "the silent one may still ask"
        assert await asyncio.wait_for(silent[0].read(), 2) == b""
        for _, writer in (used, silent):
            writer.close()
