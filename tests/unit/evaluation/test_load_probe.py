"""The driver is open loop, and a probe tells every way in which an answer may end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from headgate.core.clock import ManualClock, SystemClock
from headgate.core.secret import Secret
from headgate.engines.http import HttpClient
from headgate.evaluation.burst import Arrival
from headgate.evaluation.load_probe import ChatProbe, drive
from headgate.evaluation.samples import Sample

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def event(value: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


async def test_a_slow_answer_holds_nobody_up() -> None:
    clock = ManualClock()
    sent: list[tuple[int, float]] = []
    samples: list[Sample] = []

    async def ask(arrival: Arrival, began: float) -> Sample:
        sent.append((arrival.number, clock.monotonic() - began))
        await clock.sleep(100.0)
        return Sample(number=arrival.number, pipeline="a", start_s=arrival.at_s, end_s=clock.monotonic() - began)

    arrivals = [Arrival(number=number, at_s=float(number), pipeline="a") for number in range(5)]
    driving = asyncio.create_task(drive(arrivals, ask, clock, samples.append))
    for _ in range(5):
        await asyncio.sleep(0)
    for _ in range(10):
        await clock.advance(0.5)
    assert sent == [(number, float(number)) for number in range(5)]
    assert samples == []
    await clock.advance(200.0)
    await driving
    assert len(samples) == 5


@asynccontextmanager
async def served(folder: Path, answer: Answer) -> AsyncIterator[ChatProbe]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Authorization: Bearer hg_x\r\n" in head
        await answer(writer)
        writer.close()

    server = await asyncio.start_unix_server(handle, folder / "s")
    clock = SystemClock()
    client = HttpClient(clock)
    try:
        yield ChatProbe(client, f"unix:{folder / 's'}", Secret("hg_x"), clock, lambda _: {"messages": []})
    finally:
        await client.close()
        server.close()
        await server.wait_closed()


async def ask(folder: Path, *pieces: bytes) -> Sample:
    async def answer(writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
        await writer.drain()

    async with served(folder, answer) as probe:
        began = asyncio.get_running_loop().time()
        sample = await probe(Arrival(number=3, at_s=0.0, pipeline="a"), began)
        assert probe.in_flight == 0
        return sample


async def test_a_whole_answer(tmp_path: Path) -> None:
    said = event({"choices": [{"delta": {"role": "assistant"}}]}) + event({"choices": [{"delta": {"content": "x"}}]})
    usage = event({"choices": [], "usage": {"completion_tokens": 12}})
    sample = await ask(tmp_path, HEAD, said, usage, b"data: [DONE]\n\n")
    assert (sample.failure, sample.status, sample.tokens, sample.number) == (None, 200, 12, 3)
    assert sample.first_s is not None and sample.start_s <= sample.first_s <= sample.end_s


@pytest.mark.parametrize(
    ("pieces", "failure"),
    [
        ((HEAD, event({"choices": [{"delta": {"content": "x"}}]})), "cut_off"),
        ((HEAD, event({"error": {"code": "replica_failed"}}), b"data: [DONE]\n\n"), "replica_failed"),
        (
            (b"HTTP/1.1 429 X\r\nContent-Length: 30\r\n\r\n" + b'{"error":{"code":"queue_full"}}'[:30],),
            "no_openai_error",
        ),
        ((b"HTTP/1.1 429 X\r\nContent-Length: 31\r\n\r\n" + b'{"error":{"code":"queue_full"}}',), "queue_full"),
        ((b"nonsense\r\n\r\n",), "replica_broke"),
        ((HEAD, b"data: nonsense\n\n"), "JSONDecodeError"),
    ],
)
async def test_ways_to_fail(tmp_path: Path, pieces: tuple[bytes, ...], failure: str) -> None:
    assert (await ask(tmp_path, *pieces)).failure == failure


async def test_nobody_there(tmp_path: Path) -> None:
    clock = SystemClock()
    client = HttpClient(clock)
    probe = ChatProbe(client, f"unix:{tmp_path / 'none'}", Secret("hg_x"), clock, lambda _: {})
    sample = await probe(Arrival(number=0, at_s=0.0, pipeline="a"), clock.monotonic())
    await client.close()
    assert (sample.failure, sample.status) == ("replica_unreachable", None)
