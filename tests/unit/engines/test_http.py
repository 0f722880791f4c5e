"""The client against small servers of this loop: reuse, limits, broken servers, cancelling."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from headgate.core.clock import ManualClock, SystemClock
from headgate.core.errors import UpstreamFailed
from headgate.engines.http import HIGH_WATER, HttpClient, HttpLimits

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[str]:
    """A server on a Unix socket; gives its address."""
    folder = Path(tempfile.mkdtemp(prefix="hg", dir="/tmp"))
    tasks: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_unix_server(run, str(folder / "s.sock"))
    try:
        yield f"unix:{folder}/s.sock"
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        shutil.rmtree(folder)


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    client = HttpClient(SystemClock())
    yield client
    await client.close()


async def head_of(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            await reader.readexactly(int(line.split(b":")[1]))
    return head


def answer(body: bytes = b"ok", extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), extra, body)


async def fetch(client: HttpClient, address: str, body: bytes = b"") -> bytes:
    async with client.request("POST", address, "/p", (("X-A", "b"),), body) as response:
        return await response.read()


async def test_sends_a_request_and_reads_the_answer(client: HttpClient) -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await head_of(reader))
        writer.write(answer(b"hello", b"X-Thing: one\r\n"))

    async with server(serve) as address, client.request("POST", address, "/p?q=1", (("X-A", "b"),), b"{}") as response:
        assert response.status == 200
        assert response.header("x-thing") == "one"
        assert response.header("none") is None
        assert await response.read() == b"hello"
    assert seen == [b"POST /p?q=1 HTTP/1.1\r\nHost: localhost\r\nX-A: b\r\nContent-Length: 2\r\n\r\n"]


async def test_uses_a_connection_again(client: HttpClient) -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await head_of(reader)
            writer.write(answer())

    async with server(serve) as address:
        for _ in range(5):
            assert await fetch(client, address, b"body") == b"ok"
        assert connections == 1
        await asyncio.gather(*[fetch(client, address) for _ in range(4)])
        assert connections == 4
        assert client.open_connections == 4
        client.forget(address)
        assert client.open_connections == 0


async def test_does_not_use_a_connection_again_that_says_close(client: HttpClient) -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await head_of(reader)
        writer.write(answer(extra=b"Connection: close\r\n"))

    async with server(serve) as address:
        await fetch(client, address)
        await fetch(client, address)
    assert connections == 2


async def test_tries_once_again_on_a_stale_connection(client: HttpClient) -> None:
    heads = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heads
        await head_of(reader)
        heads += 1
        writer.write(answer())
        await reader.readexactly(1)  # the next request on this connection finds it closed

    async with server(serve) as address:
        assert await fetch(client, address) == b"ok"
        assert await fetch(client, address) == b"ok"
    assert heads == 2


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhal",
        b"\x00\x01garbage\r\n\r\n",
    ],
)
async def test_a_broken_answer_is_an_error_and_not_tried_again(client: HttpClient, wire: bytes) -> None:
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await head_of(reader)
        asked += 1
        writer.write(wire)
        await writer.drain()

    async with server(serve) as address:
        with pytest.raises(UpstreamFailed) as raised:
            await fetch(client, address)
    assert raised.value.code == "replica_broke"
    assert asked == 1


async def test_nobody_there(client: HttpClient, tmp_path: Path) -> None:
    for address in (f"unix:{tmp_path}/none.sock", "http://127.0.0.1:9", "ftp://x", "https://"):
        with pytest.raises(UpstreamFailed) as raised:
            await fetch(client, address)
        assert raised.value.code == "replica_unreachable"


async def test_reads_chunks_as_they_come(client: HttpClient) -> None:
    more = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        await more.wait()
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")
        await reader.readexactly(1)

    async with server(serve) as address, client.request("GET", address, "/") as response:
        assert await response.next_chunk() == b"one"
        more.set()
        assert [chunk async for chunk in response.chunks()] == [b"two"]
        assert await response.next_chunk() == b""
    assert client.open_connections == 1


async def test_an_answer_may_end_with_its_connection(client: HttpClient) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it")

    async with server(serve) as address:
        assert await fetch(client, address) == b"all of it"
    assert client.open_connections == 0


async def test_passes_over_interim_answers(client: HttpClient) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"final"))

    async with server(serve) as address:
        assert await fetch(client, address) == b"final"


async def test_leaving_early_closes_the_connection(client: HttpClient) -> None:
    closed = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        try:
            await reader.readexactly(1)
        finally:
            closed.set()

    async with server(serve) as address:
        async with client.request("GET", address, "/") as response:
            await response.next_chunk()
        await asyncio.wait_for(closed.wait(), 5)
    assert client.open_connections == 0


async def test_cancelling_closes_the_connection(client: HttpClient) -> None:
    asked, closed = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        asked.set()
        try:
            await reader.readexactly(1)
        finally:
            closed.set()

    async with server(serve) as address:
        task = asyncio.create_task(fetch(client, address))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(closed.wait(), 5)
    assert client.open_connections == 0


async def test_gives_up_on_a_server_that_says_nothing() -> None:
    clock = ManualClock()
    client = HttpClient(clock, HttpLimits(first_byte_s=10, idle_s=2, pooled_s=4))
    asked, talk = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        asked.set()
        await talk.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        await reader.readexactly(1)

    async with server(serve) as address:
        silent = asyncio.create_task(fetch(client, address))
        await asked.wait()
        await clock.advance(9)
        assert not silent.done()
        await clock.advance(2)
        with pytest.raises(UpstreamFailed) as raised:
            await silent
        assert raised.value.code == "replica_timeout"
        talk.set()
        async with client.request("GET", address, "/") as response:
            assert await response.next_chunk() == b"half"
            stalled = asyncio.create_task(response.next_chunk())
            await asyncio.sleep(0)
            await clock.advance(3)
            with pytest.raises(UpstreamFailed):
                await stalled
    await client.close()


async def test_closes_connections_that_lie_idle() -> None:
    clock = ManualClock()
    client = HttpClient(clock, HttpLimits(pooled_s=4))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await head_of(reader)
            writer.write(answer())

    async with server(serve) as address:
        await fetch(client, address)
        await clock.advance(3)
        assert client.open_connections == 1
        await clock.advance(2)
        assert client.open_connections == 0
    await client.close()


async def test_bounds_head_and_body() -> None:
    client = HttpClient(SystemClock(), HttpLimits(head_bytes=1000, body_bytes=1000))
    wires = [
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 5000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n" + b"x" * 2000,
    ]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(wires.pop(0))
        await reader.readexactly(1)

    async with server(serve) as address:
        for _ in range(2):
            with pytest.raises(UpstreamFailed):
                await fetch(client, address)
    await client.close()


async def test_does_not_read_on_while_nobody_takes(client: HttpClient) -> None:
    size = 16 * 1024 * 1024
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await head_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(b"x" * 65536)
            sent += 65536
            await writer.drain()
        await reader.readexactly(1)

    async with server(serve) as address, client.request("GET", address, "/") as response:
        for _ in range(200):
            await asyncio.sleep(0)
        assert sent < HIGH_WATER * 8, "the server was slowed down"
        assert sum([len(chunk) async for chunk in response.chunks()]) == size


async def test_speaks_tcp_with_a_base_path(client: HttpClient) -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await head_of(reader))
        writer.write(answer())
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    assert await fetch(client, f"http://127.0.0.1:{port}/base/v1#model") == b"ok"
    assert seen[0].startswith(b"POST /base/v1/p HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % port)
    listening.close()


async def test_an_answer_that_nobody_took_is_never_given_to_the_next(client: HttpClient) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            line = await reader.readuntil(b"\r\n\r\n")
            writer.write(answer(line.split(b" ")[1]))
            await writer.drain()

    async with server(serve) as address:
        for _ in range(3):
            async with client.request("GET", address, "/theirs"):
                await asyncio.sleep(0.02)  # the whole answer is here by now, and the caller leaves without it
            async with client.request("GET", address, "/ours") as response:
                assert await response.read() == b"/ours"
