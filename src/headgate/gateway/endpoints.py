"""The OpenAI endpoints: from a request's bytes to its answer's, carried by serving."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

from headgate.core.chat import Call, Delta, Kind
from headgate.core.clock import Clock
from headgate.core.errors import BadRequest, ClientGone, HeadgateError, MethodNotAllowed, Unavailable
from headgate.core.ids import Ids
from headgate.core.principal import Principal
from headgate.core.table import PipelineRoute
from headgate.gateway.access import Access, require
from headgate.gateway.exchange import JSON, Exchange, Headers, Receive, Scope, Send
from headgate.gateway.metrics import Metrics
from headgate.gateway.settings import GatewaySettings
from headgate.gateway.wire import chat, completions, embeddings, responses
from headgate.gateway.wire.answers import (
    AnswerWriter,
    ChatWriter,
    Collected,
    CompletionWriter,
    EmbeddingWriter,
    WholeWriter,
)
from headgate.gateway.wire.body import parse_object
from headgate.gateway.wire.errors import error_bytes
from headgate.gateway.wire.response_answers import ResponseWriter
from headgate.serving.passage import Passage, Serving

log = logging.getLogger(__name__)

_NAMED_FIELDS = 20  # most fields that a warning header names


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What every endpoint needs; one per gateway process."""

    serving: Serving
    access: Access
    metrics: Metrics
    settings: GatewaySettings
    ids: Ids
    clock: Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A request that was read: its calls, whether it streams, the writer of its answer and the fields not honoured."""

    calls: Sequence[Call]
    stream: bool
    writer: AnswerWriter | WholeWriter
    ignored: list[str]


Read = Callable[[dict[str, Any], PipelineRoute, frozenset[str], str, int], Reading]


class Endpoint:
    """One POST endpoint as an ASGI application. `local` principals come from the admin socket and need no key."""

    def __init__(self, desk: Desk, kind: Kind, read: Read) -> None:
        self._desk = desk
        self._kind: Kind = kind
        self._read = read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; whatever goes wrong is told in OpenAI's shape."""
        desk = self._desk
        exchange = Exchange(scope, receive, send, desk.settings.stalled_client_s)
        request_id = desk.ids.new()
        headers: Headers = [(b"x-request-id", request_id.encode())]
        pipeline, status = "unknown", 200
        try:
            if scope["method"] != "POST":
                raise MethodNotAllowed("This path takes POST.", allow="POST")
            principal = scope.get("headgate.principal") or desk.access.principal(scope["headers"])
            require(principal, "user")
            parsed = parse_object(await exchange.read_body(desk.settings.max_body_bytes))
            route = self._find_pipeline(parsed)
            pipeline = route.name
            honoured = desk.serving.honours(route, self._kind)
            reading = self._read(parsed, route, honoured, request_id, int(desk.clock.now()))
            if reading.ignored:
                headers.append((b"x-headgate-warning", _warning(reading.ignored)))
            await self._carry(exchange, reading, principal, headers, request_id)
        except HeadgateError as error:
            status = error.status
            if not exchange.gone and not exchange.started:
                await exchange.answer_error(error, headers)
        except asyncio.CancelledError:
            status = ClientGone.status
            if not exchange.gone:
                raise
        except Exception:
            status = 500
            log.exception("request %s failed", request_id)
            if not exchange.started:
                await exchange.answer_error(HeadgateError(), headers)
        finally:
            exchange.unwatch()
            desk.metrics.count(pipeline, self._kind, status)

    def _find_pipeline(self, parsed: dict[str, Any]) -> PipelineRoute:
        name = parsed.get("model")
        if not isinstance(name, str) or not name:
            raise BadRequest("'model' must name a pipeline; `GET /v1/models` lists them.", param="model")
        route = self._desk.serving.dispatcher.lane(name).route
        if (route.task == "embed") != (self._kind == "embedding"):
            cure = "send it to /v1/embeddings" if route.task == "embed" else "name a pipeline with an embedding model"
            raise BadRequest(f"Pipeline '{route.name}' does not do that: {cure}.", param="model")
        return route

    async def _carry(
        self, exchange: Exchange, reading: Reading, principal: Principal, headers: Headers, request_id: str
    ) -> None:
        desk = self._desk
        exchange.watch()
        passage = desk.serving.passage(reading.calls, principal, stream=reading.stream, request_id=request_id)
        if passage.choices > desk.settings.max_choices:
            chat.check_choices(passage.choices, desk.settings.max_choices, "prompt" if len(reading.calls) > 1 else "n")
        try:
            if reading.stream:
                await self._stream(exchange, cast("AnswerWriter", reading.writer), passage, headers)
            else:
                await self._whole(exchange, reading.writer, passage, headers)
        finally:
            desk.metrics.observe(
                reading.calls[0].pipeline,
                total_s=passage.total_s,
                first_s=passage.first_s,
                queue_s=passage.queue_s,
                prompt_tokens=passage.usage.prompt_tokens,
                output_tokens=passage.usage.output_tokens,
                continued=passage.continued,
            )

    async def _whole(self, exchange: Exchange, writer: WholeWriter, passage: Passage, headers: Headers) -> None:
        async with passage:
            if passage.choices == 1:
                collected = [await _collect(passage, 0)]
            else:
                async with _flat_task_group() as group:
                    tasks = [group.create_task(_collect(passage, index)) for index in range(passage.choices)]
                collected = [task.result() for task in tasks]
            body = writer.whole(collected, passage.usage)
        await exchange.answer(200, body, [*headers, *_route_headers(passage), JSON])

    async def _stream(self, exchange: Exchange, writer: AnswerWriter, passage: Passage, headers: Headers) -> None:
        try:
            async with passage, aclosing(_merged(passage)) as pieces:
                async for index, delta in pieces:
                    opening = b""
                    if not exchange.started:
                        await exchange.start_events([*headers, *_route_headers(passage)])
                        opening = writer.begin()  # before the chunk: events are numbered in the order they are made
                    if data := opening + writer.chunk(index, delta):
                        await exchange.piece(data)
        except HeadgateError as error:
            if not exchange.started or exchange.gone:
                raise
            log.warning("stream %s broke: %s", passage.id, error.code)
            await exchange.finish(writer.fail(error_bytes(error)))
            raise
        except asyncio.CancelledError:
            if exchange.started and not exchange.gone:  # a drain that ran out of time: say so
                await exchange.finish(writer.fail(error_bytes(_stopping())))
            raise
        if not exchange.started:
            await exchange.start_events([*headers, *_route_headers(passage)])
        await exchange.finish(writer.end(passage.usage))


async def _collect(passage: Passage, index: int) -> Collected:
    collected = Collected()
    async with aclosing(passage.choice(index)) as pieces:
        async for delta in pieces:
            collected.add(delta)
    return collected


async def _merged(passage: Passage) -> AsyncGenerator[tuple[int, Delta], None]:
    """The pieces of all choices as they come."""
    if passage.choices == 1:
        async with aclosing(passage.choice(0)) as pieces:
            async for delta in pieces:
                yield 0, delta
        return
    queue: asyncio.Queue[tuple[int, Delta] | None] = asyncio.Queue(maxsize=64)

    async def pump(index: int) -> None:
        async with aclosing(passage.choice(index)) as pieces:
            async for delta in pieces:
                await queue.put((index, delta))

    async def pump_all() -> HeadgateError | None:
        try:
            async with _flat_task_group() as group:
                for index in range(passage.choices):
                    group.create_task(pump(index))
        except HeadgateError as error:
            await queue.put(None)
            return error
        await queue.put(None)  # not when cancelled: then nobody takes it, and the queue may be full
        return None

    task = asyncio.get_running_loop().create_task(pump_all())
    task.add_done_callback(lambda _: _wake_reader(task, queue))
    try:
        while (item := await queue.get()) is not None:
            yield item
        if (error := await task) is not None:
            raise error
    finally:
        task.cancel()
        # Why awaited: the calls' rows and slots are settled before their request's is.
        await asyncio.gather(task, return_exceptions=True)


def _wake_reader(writer: asyncio.Task[Any], queue: asyncio.Queue[tuple[int, Delta] | None]) -> None:
    """End the wait of a reader whose writers died of something unforeseen."""
    if not writer.cancelled() and writer.exception() is not None:
        if queue.full():
            queue.get_nowait()
        queue.put_nowait(None)


def _stopping() -> Unavailable:
    return Unavailable("The gateway is stopping and could not wait for the rest of this answer. Send it again.")


class _flat_task_group(asyncio.TaskGroup):
    """A task group that raises the first error itself, as a single choice would."""

    async def __aexit__(self, *args: Any) -> None:
        try:
            await super().__aexit__(*args)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None


def _route_headers(passage: Passage) -> Headers:
    route = passage.route
    if route is None:
        return []
    headers = [
        (b"x-headgate-version", route.version.encode()),
        (b"x-headgate-device", route.device.encode()),
        (b"x-headgate-replica", route.id.encode()),
        (b"x-headgate-queue-ms", b"%.1f" % (passage.queue_s * 1e3)),
    ]
    if passage.attempts > passage.choices:
        headers.append((b"x-headgate-attempts", b"%d" % passage.attempts))
    return headers


def _warning(ignored: list[str]) -> bytes:
    names = [name if name.isascii() and name.isprintable() else ascii(name) for name in ignored[:_NAMED_FIELDS]]
    rest = f" and {len(ignored) - _NAMED_FIELDS} more" if len(ignored) > _NAMED_FIELDS else ""
    return f"not honoured: {', '.join(name[:64] for name in names)}{rest}".encode("ascii", "replace")


def _ignored(parsed: dict[str, Any], honoured: frozenset[str], own: frozenset[str]) -> list[str]:
    """The fields with a value that neither the engine honours nor the endpoint answers for itself, by name."""
    return sorted(
        [name for name, value in parsed.items() if value is not None and name not in honoured and name not in own]
    )


def read_chat(
    parsed: dict[str, Any], route: PipelineRoute, honoured: frozenset[str], request_id: str, created: int
) -> Reading:
    """Read a /v1/chat/completions body."""
    request, call = chat.read_chat(parsed, route, honoured)
    include_usage = bool(request.stream_options and request.stream_options.include_usage)
    return Reading(
        calls=[call],
        stream=bool(request.stream),
        writer=ChatWriter(request_id, route.name, created, call.choices, include_usage),
        ignored=_ignored(parsed, honoured, chat.OWN_FIELDS),
    )


def read_completion(
    parsed: dict[str, Any], route: PipelineRoute, honoured: frozenset[str], request_id: str, created: int
) -> Reading:
    """Read a /v1/completions body."""
    request, calls = completions.read_completion(parsed, route, honoured)
    include_usage = bool(request.stream_options and request.stream_options.include_usage)
    return Reading(
        calls=calls,
        stream=bool(request.stream),
        writer=CompletionWriter(request_id, route.name, created, include_usage),
        ignored=_ignored(parsed, honoured, completions.OWN_FIELDS),
    )


def read_response(
    parsed: dict[str, Any], route: PipelineRoute, honoured: frozenset[str], request_id: str, created: int
) -> Reading:
    """Read a /v1/responses body."""
    request, call = responses.read_response(parsed, route, honoured)
    echo: dict[str, Any] = {
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "text": parsed.get("text") or {"format": {"type": "text"}},
    }
    if request.user is not None:
        echo["user"] = request.user
    return Reading(
        calls=[call],
        stream=bool(request.stream),
        writer=ResponseWriter(request_id, route.name, created, echo),
        ignored=_ignored(parsed, honoured & {"temperature", "top_p"}, responses.OWN_FIELDS),
    )


def read_embedding(
    parsed: dict[str, Any], route: PipelineRoute, honoured: frozenset[str], request_id: str, created: int
) -> Reading:
    """Read a /v1/embeddings body."""
    request, call = embeddings.read_embedding(parsed, route, honoured)
    return Reading(
        calls=[call],
        stream=False,
        writer=EmbeddingWriter(route.name, as_base64=request.encoding_format == "base64"),
        ignored=_ignored(parsed, honoured, embeddings.OWN_FIELDS),
    )
