"""Bad requests are refused at once: in milliseconds of one core, naming the field. The bound here is a generous one."""

from __future__ import annotations

import time
from typing import Any

import orjson
import pytest

from headgate.core.errors import BadRequest
from headgate.core.table import PipelineRoute
from headgate.gateway.endpoints import read_chat, read_completion, read_embedding, read_response
from headgate.gateway.wire.body import KEYS_MAX, parse_object
from headgate.gateway.wire.limits import MESSAGES_MAX

LIMIT_S = 0.25
HONOURED = frozenset({"messages", "prompt", "input", "response_format", "tools", "tool_choice", "stop", "logit_bias"})
HI = [{"role": "user", "content": "hi"}]
PARTS = [{"type": "text", "text": ""}] * 10_000
STRING = {"type": "string"}


def route(context: int) -> PipelineRoute:
    return PipelineRoute(
        name="p", model="p", version="v", engine="fake", task="generate", context=context, queue=4, weight=1.0,
        first_token_s=1.0, per_token_s=0.1, timeout_s=60.0, created=1,
    )  # fmt: skip


def refuse(body: bytes, read: Any = read_chat, context: int = 131072) -> BadRequest:
    """How `body` is refused; a test fails when it is not, or the best of three takes too long."""
    took_s: list[float] = []
    refusals: list[BadRequest] = []
    for _ in range(3):
        began = time.perf_counter()
        with pytest.raises(BadRequest) as caught:
            read(parse_object(body), route(context), HONOURED, "r", 1)
        took_s.append(time.perf_counter() - began)
        refusals.append(caught.value)
    assert min(took_s) < LIMIT_S, f"{min(took_s) * 1e3:.0f} ms"
    refusal = refusals[0]
    assert refusal.status == 400 and refusal.message.endswith(".")
    return refusal


def chat(**fields: Any) -> bytes:
    return orjson.dumps({"model": "p", "messages": HI} | fields)


def test_bodies_with_too_many_parts() -> None:
    members = ",".join(f'"key{number:06d}":1234' for number in range(60_000))
    for body in (
        b'{"a":{%s,"key000003":2}}' % members.encode(),
        b'{"a":[' + b"[]," * 300_000 + b"[]]}",
        b'{"a":[' + b"{}," * 2_000_000 + b"{}]}",
        b'{"a":[' + b'"",' * 300_000 + b'""]}',
        b'{"a":[' + b"1," * 3_000_000 + b"1]}",
        b'{"a":[' + (b"[" * 97 + b"]" * 97 + b",") * 5_000 + b"[]]}",
    ):
        assert "send less" in refuse(body).message


def test_a_duplicate_in_a_large_body_is_named() -> None:
    members = ",".join(f'"key{number:06d}":1234' for number in range(KEYS_MAX - 100))
    text = "x" * 500_000
    assert refuse(b'{"t":"%s","a":{%s,"key000003":2}}' % (text.encode(), members.encode())).param == "key000003"
    assert refuse(b'{"t":"%s","t":1}' % (rb"\":,[{" * 100_000)).param == "t"


def test_what_is_no_json() -> None:
    for body in (
        b'{"a":"' + b"x" * 1_000_000 + b'\xff"}',
        b'{"a":' + b"[" * 1_000_000,
        b'{"a":[' + b"1," * 500_000,
        chat()[:-1] + b',"n":' + b"9" * 1_000_000 + b"}",
        chat()[:-1] + b',"temperature":NaN}',
        chat()[:-1] + b',"temperature":-Infinity}',
    ):
        assert refuse(body).param is None


def test_long_conversations_pass() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"city": "Paris", "days": [1, 2]}'}}
    turns: list[dict[str, Any]] = []
    for _ in range(1000):
        turns.append({"role": "assistant", "content": None, "tool_calls": [call]})
        turns.append({"role": "tool", "tool_call_id": "c", "content": '{"weather": ["sun", "rain: {a lot}"]}' * 5})
    tools = [
        {"type": "function", "function": {"name": f"f{number}", "parameters": {"properties": {"a": STRING}}}}
        for number in range(100)
    ]
    parsed = parse_object(chat(messages=turns + HI, tools=tools))
    assert read_chat(parsed, route(131072), HONOURED, "r", 1).calls


@pytest.mark.parametrize("context", [4096, 131072])
@pytest.mark.parametrize("content", ["", "x"])
@pytest.mark.parametrize("role", ["user", "assistant"])
def test_too_many_messages(context: int, content: str, role: str) -> None:
    told = [{"role": role, "content": content}] * (MESSAGES_MAX + 1)
    assert refuse(chat(messages=told), context=context).param == "messages"
    error = refuse(orjson.dumps({"model": "p", "input": told}), read_response, context)
    assert error.code == "context_length_exceeded"
    assert error.param == "input" and str(MESSAGES_MAX) in error.message
    assert refuse(chat(messages=[{"role": role, "content": content}] * 10_000), context=context).param == "messages"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": "x" * 1_000_000}, "model"),
        ({"user": "x" * 1_000_000}, "user"),
        ({"stop": ["x"] * 100_000}, "stop"),
        ({"stop": "x" * 1_000_000}, "stop"),
        ({"logit_bias": {str(number): 1000 for number in range(25_000)}}, "logit_bias"),
        ({"logit_bias": {str(number): 1000 for number in range(4000)}}, "logit_bias.0"),
        ({"tools": [1] * 100_000}, "tools"),
        ({"tools": [{}] * 25_000}, "tools"),
        ({"tool_choice": [1] * 100_000}, "tool_choice"),
        ({"max_tokens": 10**18}, "max_tokens"),
        ({"n": 10**30}, "n"),
        ({"messages": HI * 4000 + [{"role": "user"}]}, "messages.4000"),
        ({"messages": [{"role": "user", "content": [*PARTS, 1]}]}, "messages.0.content.10000"),
        ({"messages": [{"role": "x" * 1_000_000, "content": ""}]}, "messages.0.role"),
    ],
)  # fmt: skip
def test_fields_of_chats(fields: dict[str, Any], param: str) -> None:
    body = chat(**{name: value for name, value in fields.items() if value != 10**30})
    if fields.get("n"):
        body = body[:-1] + b',"n":' + b"9" * 30 + b"}"
    assert refuse(body).param == param


def test_prompts_and_inputs() -> None:
    def asked(name: str, value: Any) -> bytes:
        return orjson.dumps({"model": "p", name: value})

    for name, read in (("prompt", read_completion), ("input", read_embedding)):
        assert refuse(asked(name, [1] * 1_000_000), read).param is None
        assert refuse(asked(name, [1] * 500_000), read).param == name
        assert refuse(asked(name, [1] * 100_000 + [-1]), read).param == f"{name}.100000"
        assert refuse(asked(name, ["x"] * 200_000), read).param is None
        assert refuse(asked(name, ["x"] * 100_000), read).param == name
        assert refuse(asked(name, [[1]] * 25_000), read).param == name
    assert refuse(asked("input", [[1] * 250] * 2047 + [[-1]]), read_embedding).param == "input.2047.0"


def test_schemas_of_one_request_are_bounded_together() -> None:
    tools = [
        {
            "type": "function",
            "function": {"name": f"f{number}", "parameters": {"anyOf": [{}] * 900, "title": str(number)}},
        }
        for number in range(12)
    ]
    error = refuse(chat(tools=tools))
    assert error.param == "tools.11.function.parameters" and "fewer or smaller tools" in error.message
