"""Schemas of clients: enforced, bounded, never quoted."""

from __future__ import annotations

import time
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


def branching(schema: dict[str, Any], times: int) -> dict[str, Any]:
    return {"type": "array", "items": {"anyOf": [schema] * times}}


def named(count: int, word: str, reference: str) -> dict[str, Any]:
    """Definitions that refer to each other in a way other than by path."""
    parts: dict[str, Any] = {"a0": {word: "a0", "type": "string"}}
    for number in range(1, count):
        parts[f"a{number}"] = {word: f"a{number}", "anyOf": [{reference: f"#a{number - 1}"}] * 2}
    return {"$defs": parts, reference: f"#a{count - 1}"}


@pytest.mark.parametrize(
    ("schema", "cure"),
    [
        (multiplying(40), "less often"),
        ({"properties": {"default": {"$ref": "#/$defs/a39"}}, "$defs": multiplying(40)["$defs"]}, "less often"),
        ({"$ref": "#/", "": {"$ref": "#/$defs/a39"}, "$defs": multiplying(40)["$defs"]}, "less often"),
        (branching({"$ref": "#"}, 1500), "refers to itself"),
        (named(40, "$anchor", "$ref"), "$defs"),
        (named(40, "$dynamicAnchor", "$dynamicRef"), "'$ref'"),
        ({"$defs": {"a": {"$id": "http://x/a", "$ref": "#/b"}}}, "Leave it out"),
        ({"$defs": {f"a{n}": {"$ref": f"#/$defs/a{n + 1}"} for n in range(3000)}, "$ref": "#/$defs/a0"}, "chain"),
        ({"anyOf": [{}] * 80_000}, "smaller schema"),
        ({"enum": [[]] * 80_000}, "smaller schema"),
        ({"properties": {f"p{number}": {"type": "string"} for number in range(9000)}}, "smaller schema"),
        ({"enum": ["x" * 100] * 3000}, "smaller schema"),
        ({"pattern": "a" * 200_000}, "smaller schema"),
        ({"pattern": "(\\pL{100}){1000}"}, "pattern"),
        ({"allOf": [{"pattern": "\\pL{1,50}" + str(number)} for number in range(1000)]}, "smaller schema"),
        ({"patternProperties": {"(.{30}){30}" + str(number): {} for number in range(1000)}}, "smaller schema"),
    ],
)
def test_schemas_that_would_take_long_are_refused_at_once(schema: dict[str, Any], cure: str) -> None:
    took_s: list[float] = []
    for _ in range(3):
        began = time.perf_counter()
        with pytest.raises(BadRequest) as caught:
            check_schema(schema, "field")
        took_s.append(time.perf_counter() - began)
        assert caught.value.param == "field" and cure in caught.value.message
    assert min(took_s) < 0.5


@pytest.mark.parametrize(
    ("schema", "fitting"),
    [
        (branching({"$ref": "#"}, 2), False),
        ({"type": "array", "items": {"oneOf": [{"$ref": "#"}, {"$ref": "#"}]}}, False),
        ({"type": "array", "contains": {"$ref": "#"}, "items": {"if": {"$ref": "#"}, "then": {"$ref": "#"}}}, False),
        ({"items": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}, True),
        (multiplying(11), False),
        ({"type": "array", "items": multiplying(11), "$defs": multiplying(11)["$defs"]}, False),
    ],
)
def test_answers_to_branching_schemas_are_checked_at_once(schema: dict[str, Any], fitting: bool) -> None:
    took_s: list[float] = []
    for _ in range(3):
        began = time.perf_counter()
        try:
            check_answer(call(schema), "[" * 300 + "1" + "]" * 300, "stop")
        except SchemaViolation:
            assert not fitting
        else:
            assert fitting
        took_s.append(time.perf_counter() - began)
    assert min(took_s) < 0.25


def test_the_place_of_a_violation_is_told_where_it_is_cheap_to_find() -> None:
    asked = call({"properties": {"a": {"items": {"type": "string"}}}})
    with pytest.raises(SchemaViolation, match="at a/1"):
        check_answer(asked, '{"a": ["x", 1]}', "stop")
    with pytest.raises(SchemaViolation, match=r"schema\. Retry"):
        check_answer(call({"items": {"$ref": "#"}, "type": "array"}), "[[[1]]]", "stop")
