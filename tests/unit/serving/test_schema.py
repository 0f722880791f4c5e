"""Schemas of clients: enforced, bounded, never quoted."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.core.chat import Call
from headgate.core.errors import AnswerCut, BadRequest, SchemaViolation
from headgate.serving.schema import check_answer, check_schema, check_tool_calls

SECRET = "Zanzibar"


def multiplying(levels: int) -> dict[str, Any]:
    parts: dict[str, Any] = {"a0": {"type": "string"}}
    for number in range(1, levels):
        parts[f"a{number}"] = {"anyOf": [{"$ref": f"#/$defs/a{number - 1}"}, {"$ref": f"#/$defs/a{number - 1}"}]}
    return {"$defs": parts, "$ref": f"#/$defs/a{levels - 1}"}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": SECRET},
        {"properties": {"a": {"minimum": SECRET}}},
        {"pattern": f"({SECRET}"},
        {"$ref": f"#/{SECRET}"},
        {"$ref": f"http://127.0.0.1/{SECRET}"},
        {"$ref": f"file:///etc/{SECRET}"},
        multiplying(30),
    ],
)
def test_schemas_that_cannot_be_enforced(schema: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as caught:
        check_schema(schema, "field")
    assert caught.value.param == "field" and SECRET not in caught.value.message and caught.value.message.endswith(".")


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"$ref": "#"},
        {"$defs": {"n": {"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}}}}, "$ref": "#/$defs/n"},
        multiplying(10),
        {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(1000)}},
    ],
)
def test_schemas_that_can(schema: dict[str, Any]) -> None:
    check_schema(schema, "field")


def call(schema: dict[str, Any] | None, **body: Any) -> Call:
    return Call(kind="chat", pipeline="p", body=body, schema=schema)


def test_answers() -> None:
    asked = call({"type": "object", "required": ["a"], "properties": {"a": {"const": SECRET}}})
    check_answer(asked, f'{{"a": "{SECRET}"}}', "stop")
    for text, finish in (("", "stop"), ("{", "stop"), ("{}", "stop"), ('{"a": "x"}', "stop")):
        with pytest.raises(SchemaViolation) as caught:
            check_answer(asked, text, finish)
        assert SECRET not in caught.value.message
    with pytest.raises(AnswerCut):
        check_answer(asked, f'{{"a": "{SECRET}"}}', "length")
    free = call(None, response_format={"type": "json_object"})
    check_answer(free, "{}", "stop")
    with pytest.raises(SchemaViolation):
        check_answer(free, "[]", "stop")
    check_answer(call(None), "anything", "length")


def test_tool_calls() -> None:
    tool = {"function": {"name": "f", "strict": True, "parameters": {"type": "object", "required": ["a"]}}}
    asked = call(None, tools=[tool])
    check_tool_calls(asked, [{"function": {"name": "f", "arguments": '{"a": 1}'}}])
    for name, arguments in (("g", "{}"), ("f", "{"), ("f", "{}")):
        with pytest.raises(SchemaViolation):
            check_tool_calls(asked, [{"function": {"name": name, "arguments": arguments}}])
