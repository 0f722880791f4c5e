"""What requests become: nothing reaches an engine that was not checked, and nothing is dropped without a word."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from headgate.core.chat import Delta
from headgate.core.clock import ManualClock
from headgate.core.errors import BadRequest, ContextOverflow, Overloaded, PayloadTooLarge, Unavailable
from headgate.core.table import PipelineRoute
from headgate.core.usage import Usage
from headgate.engines.catalogue import build_engines
from headgate.engines.http import HttpClient
from headgate.engines.settings import EnginesSettings
from headgate.gateway.endpoints import read_chat, read_completion, read_embedding, read_response
from headgate.gateway.exchange import Exchange
from headgate.gateway.metrics import Metrics
from headgate.gateway.wire.answers import ChatWriter, Collected
from headgate.gateway.wire.chat import ChatRequest
from headgate.gateway.wire.completions import CompletionRequest
from headgate.gateway.wire.embeddings import EmbeddingRequest
from headgate.gateway.wire.errors import error_object, retry_after
from headgate.serving.dispatch import Dispatcher

ROUTE = PipelineRoute(
    name="p", model="p", version="v", engine="fake", task="generate", context=100, queue=4, weight=1.0,
    first_token_s=1.0, per_token_s=0.1, timeout_s=60.0, created=1,
)  # fmt: skip
MESSAGES = [{"role": "user", "content": "hi"}]
HONOURED = frozenset({"messages", "temperature", "prompt", "input", "response_format", "tools", "tool_choice", "seed"})


def read(kind: Any, **body: Any) -> Any:
    return kind({"model": "p"} | body, ROUTE, HONOURED, "r", 1)


def test_every_field_that_an_engine_honours_is_checked() -> None:
    models = {"chat": ChatRequest, "completion": CompletionRequest, "embedding": EmbeddingRequest}
    for name, engine in build_engines(EnginesSettings(), HttpClient(ManualClock())).items():
        for kind, model in models.items():
            unchecked = engine.honours(kind) - set(model.model_fields)  # type: ignore[arg-type]
            assert not unchecked, f"{name} honours {sorted(unchecked)} of {kind}, which the door does not check"


def test_what_is_not_honoured_is_named() -> None:
    reading = read(read_chat, messages=MESSAGES, top_p=0.5, temperature=0, user="me", weird=1, quiet=None)
    assert reading.ignored == ["top_p", "weird"]
    assert set(reading.calls[0].body) == {"messages", "temperature"}
    assert read(read_completion, prompt="x", echo=True).ignored == ["echo"]
    assert read(read_embedding, input="x", dimensions=3).ignored == ["dimensions"]
    assert read(read_response, input="x", store=True, temperature=1).ignored == ["store"]


def test_messages_become_plain_texts() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [
        {"role": "developer", "content": "rules"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
    ]
    said = read(read_chat, messages=messages).calls[0].body["messages"]
    assert said == [
        {"role": "system", "content": "rules"},
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": "no"},
    ]


def test_formats_and_tools_that_change_nothing_are_left_out() -> None:
    body = (
        read(read_chat, messages=MESSAGES, response_format={"type": "text"}, tools=[], tool_choice="none").calls[0].body
    )
    assert set(body) == {"messages"}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    for kind, asked in ((read_chat, {"messages": MESSAGES}), (read_completion, {"prompt": "x"})):
        assert read(kind, response_format=wanted, **asked).calls[0].schema == {"type": "object"}
        with pytest.raises(BadRequest):
            read(kind, response_format="json", **asked)


def test_what_cannot_fit_is_refused_and_what_might_is_not() -> None:
    for fits in ("x" * 99 * 256, ""):
        assert read(read_completion, prompt=fits).calls
    for asked in (
        {"prompt": "x" * 100 * 256},
        {"prompt": list(range(100))},
        {"prompt": "x", "max_tokens": 100},
    ):
        with pytest.raises(ContextOverflow):
            read(read_completion, **asked)
    with pytest.raises(ContextOverflow):
        read(read_chat, messages=MESSAGES * 100)


def test_a_prompt_is_one_call_each() -> None:
    assert [call.body["prompt"] for call in read(read_completion, prompt=["a", "b"]).calls] == ["a", "b"]
    assert [call.body["prompt"] for call in read(read_completion, prompt=[1, 2]).calls] == [[1, 2]]
    assert [call.body["prompt"] for call in read(read_completion, prompt=[[1], [2]]).calls] == [[1], [2]]


def test_pieces_whole_and_streamed_agree() -> None:
    writer = ChatWriter("r", "p", 1, 1, True)
    pieces = [
        Delta(text='a"\\\n'),
        Delta(text="é水"),
        Delta(tool_calls=[{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}]),
        Delta(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}]),
        Delta(finish="tool_calls"),
    ]
    collected = Collected()
    streamed = b""
    for piece in pieces:
        collected.add(piece)
        streamed += writer.chunk(0, piece)
    chunks = [orjson.loads(line[6:]) for line in streamed.split(b"\n\n") if line]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == 'a"\\\né水'
    assert all(chunk["usage"] is None for chunk in chunks)
    whole = orjson.loads(writer.whole([collected], Usage(prompt_tokens=1, output_tokens=2)))["choices"][0]
    assert whole["message"]["tool_calls"][0] == {
        "id": "c",
        "type": "function",
        "function": {"name": "f", "arguments": "{}"},
    }
    assert whole["message"]["content"] == 'a"\\\né水' and whole["finish_reason"] == "tool_calls"


def test_errors_have_openais_shape() -> None:
    told = error_object(BadRequest("'n': too many.", param="n"))["error"]
    assert told == {
        "message": "'n': too many.",
        "type": "invalid_request_error",
        "param": "n",
        "code": "invalid_request",
    }
    assert retry_after(Overloaded(retry_after_s=0.2)) == "1" and retry_after(Overloaded(retry_after_s=2.1)) == "3"
    assert retry_after(Unavailable()) == "1" and retry_after(BadRequest("x")) is None


async def test_bodies_are_read_within_their_limit() -> None:
    def exchange(*parts: bytes, headers: Any = ()) -> Exchange:
        messages = [
            {"type": "http.request", "body": part, "more_body": number < len(parts) - 1}
            for number, part in enumerate(parts)
        ]

        async def receive() -> Any:
            return messages.pop(0)

        return Exchange({"headers": list(headers)}, receive, receive, 1.0)  # type: ignore[arg-type]

    assert await exchange(b"ab", b"", b"cd").read_body(4) == b"abcd"
    for sent in ((b"abcde",), (b"ab", b"cde", b""), (b"abcde", b"")):
        with pytest.raises(PayloadTooLarge):
            await exchange(*sent).read_body(4)
    with pytest.raises(PayloadTooLarge):
        await exchange(headers=[(b"content-length", b"5")]).read_body(4)


def test_metrics_count_by_pipeline_and_outcome() -> None:
    metrics = Metrics(Dispatcher(ManualClock()))
    metrics.count("p", "chat", 200)
    metrics.count("p", "chat", 200)
    metrics.observe("p", total_s=1, first_s=None, queue_s=0, prompt_tokens=3, output_tokens=4, continued=True)
    text = metrics.render().decode()
    assert 'headgate_requests_total{kind="chat",pipeline="p",status="200"} 2.0' in text
    assert 'headgate_tokens_total{direction="output",pipeline="p"} 4.0' in text
    assert 'headgate_continued_total{pipeline="p"} 1.0' in text
