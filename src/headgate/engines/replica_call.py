"""One call to an OpenAI-speaking replica, from body to Deltas. What the engines that speak this wire share."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import orjson

from headgate.core.chat import Delta
from headgate.core.errors import HeadgateError, UpstreamFailed
from headgate.engines.engine import Upstream
from headgate.engines.http import HttpClient
from headgate.engines.json_values import as_object
from headgate.engines.openai_dialect import AnswerReader, read_embeddings, read_error
from headgate.engines.sse import EventSplitter

ERROR_BYTES_MAX = 1024 * 1024

Bridge = Callable[[Upstream, str, tuple[int, ...]], Awaitable[tuple[int, ...]]]


def request_headers(upstream: Upstream) -> tuple[tuple[str, str], ...]:
    """Content type and the secret."""
    secret = upstream.secret.reveal()
    if not secret:
        return (("Content-Type", "application/json"),)
    return (("Content-Type", "application/json"), ("Authorization", f"Bearer {secret}"))


# Why engines return this iterator and do not wrap it in one of their own: an iterator that is closed does not close
# the one within it, and then the slot would stay busy until the garbage collector comes by.
async def stream_answer(
    client: HttpClient,
    upstream: Upstream,
    path: str,
    body: dict[str, Any],
    reader: AnswerReader,
    bridge: Bridge | None = None,
) -> AsyncGenerator[Delta, None]:
    """The pieces of a streamed answer. Closing the iterator closes the connection.

    `bridge(upstream, text, known)` gives the token ids of a piece of which only the last, `known`, were told.

    Raises BadRequest or ContextOverflow when the replica refuses the call, UpstreamFailed when it breaks.
    """
    wire = orjson.dumps(body)
    async with client.request("POST", upstream.address, path, request_headers(upstream), wire) as response:
        if response.status != 200:
            raise read_error(response.status, await response.read(ERROR_BYTES_MAX))
        splitter = EventSplitter()
        # Why to the end of the body and not to [DONE]: only a connection whose response is complete can be used again.
        while chunk := await response.next_chunk():
            for delta in reader.read_all(splitter.feed(chunk)):
                if reader.gaps and bridge is not None and reader.gaps[0][0] is delta:
                    delta.token_ids = await bridge(upstream, delta.text, reader.gaps.pop(0)[1])
                yield delta
        if not reader.finished:
            raise UpstreamFailed("The replica's answer ended before it was complete.", code="replica_broke")


async def call_json(
    client: HttpClient,
    upstream: Upstream,
    path: str,
    body: dict[str, Any],
    *,
    first_byte_s: float | None = None,
) -> dict[str, Any]:
    """The JSON object that the replica answers. Raises as `stream_answer`."""
    try:
        answer = as_object(orjson.loads(await call_bytes(client, upstream, path, body, first_byte_s=first_byte_s)))
    except ValueError:
        answer = {}
    if not answer:
        raise UpstreamFailed("The replica sent an answer that makes no sense.", code="replica_broke")
    return answer


async def stream_embeddings(
    client: HttpClient, upstream: Upstream, path: str, body: dict[str, Any]
) -> AsyncGenerator[Delta, None]:
    """All embeddings of one call as the one piece of a stream. Raises as `stream_answer`."""
    yield await embed(client, upstream, path, body)


async def refuse(error: HeadgateError) -> AsyncGenerator[Delta, None]:
    """A stream that only raises."""
    raise error
    yield Delta()


async def embed(client: HttpClient, upstream: Upstream, path: str, body: dict[str, Any]) -> Delta:
    """All embeddings of one call, in one piece. Raises as `stream_answer`."""
    return read_embeddings(await call_bytes(client, upstream, path, body))


async def call_bytes(
    client: HttpClient,
    upstream: Upstream,
    path: str,
    body: dict[str, Any],
    *,
    first_byte_s: float | None = None,
) -> bytes:
    """The body of the replica's answer. Raises as `stream_answer`."""
    wire = orjson.dumps(body)
    async with client.request(
        "POST", upstream.address, path, request_headers(upstream), wire, first_byte_s=first_byte_s
    ) as response:
        if response.status != 200:
            raise read_error(response.status, await response.read(ERROR_BYTES_MAX))
        return await response.read()
