"""Checks constrained answers before they are delivered: an engine's grammar can fail open.

References are never fetched, and patterns run in linear time, because schemas come from clients.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast
from urllib.parse import unquote

import jsonschema_rs
import orjson

from headgate.core.chat import Call
from headgate.core.errors import AnswerCut, BadRequest, SchemaViolation

MAX_SCHEMA_BYTES = 256 * 1024
_DEFINITIONS = frozenset({"$defs", "definitions", "enum", "const", "default", "examples"})
MAX_STEPS = 100_000
"""Subschemas with every $ref written out. Why a limit: 40 definitions that refer twice to the one before take 2**40."""


def check_schema(schema: dict[str, Any], param: str) -> None:
    """Return when `schema` is a JSON schema that can be enforced. Raises BadRequest naming `param`."""
    encoded = orjson.dumps(schema)
    if len(encoded) > MAX_SCHEMA_BYTES:
        raise BadRequest(f"'{param}' is larger than {MAX_SCHEMA_BYTES} bytes; use a smaller schema.", param=param)
    _compile_or_refuse(encoded, param)


def check_answer(call: Call, text: str, finish: str | None) -> None:
    """Return when `text` is what `call` demands. Raises SchemaViolation saying what is off, never quoting the text."""
    if call.schema is None and call.body.get("response_format", {}).get("type") != "json_object":
        return
    if finish == "length":
        raise AnswerCut
    try:
        answer = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise SchemaViolation("The model's answer is not valid JSON. Retry, or ease the schema.") from None
    if call.schema is not None:
        _check_value(call.schema, answer)
    elif not isinstance(answer, dict):
        raise SchemaViolation("The model's answer is JSON but not an object. Retry.")


def check_tool_calls(call: Call, tool_calls: list[dict[str, Any]]) -> None:
    """Return when every call of a strict tool has arguments that fit its parameters. Raises SchemaViolation."""
    tools = {tool["function"]["name"]: tool["function"] for tool in call.body.get("tools", ())}
    for tool_call in tool_calls:
        function = tool_call.get("function", {})
        declared = tools.get(function.get("name"))
        if declared is None:
            raise SchemaViolation("The model called a tool that was not offered. Retry.")
        try:
            arguments = orjson.loads(function.get("arguments") or "{}")
        except orjson.JSONDecodeError:
            raise SchemaViolation("The model's tool arguments are not valid JSON. Retry.") from None
        if declared.get("strict") and declared.get("parameters"):
            _check_value(declared["parameters"], arguments)


def _check_value(schema: dict[str, Any], value: object) -> None:
    validator = _compile_or_refuse(orjson.dumps(schema), "response_format")
    error = next(validator.iter_errors(value), None)
    if error is not None:
        where = "/".join(str(step) for step in error.instance_path) or "the top level"
        raise SchemaViolation(f"The model's answer does not fit the schema at {where}. Retry, or ease the schema.")


def _compile_or_refuse(encoded: bytes, param: str) -> Any:
    try:
        return _compile(encoded)
    except BadRequest as error:
        raise BadRequest(f"'{param}' {error.message}", param=param) from None
    except jsonschema_rs.ValidationError as error:
        # The library's own words quote the schema, which is part of the prompt.
        where = "/".join(str(step)[:40] for step in error.instance_path)[:200] or "its top level"
        raise BadRequest(f"'{param}' is not a valid JSON schema: see {where}.", param=param) from None
    except jsonschema_rs.ReferencingError:
        raise BadRequest(
            f"'{param}' is not a valid JSON schema: a $ref leads nowhere, or out of the schema.", param=param
        ) from None
    except ValueError as error:
        raise BadRequest(f"'{param}' is not a valid JSON schema ({type(error).__name__}).", param=param) from None


@lru_cache(maxsize=256)
def _compile(encoded: bytes) -> Any:
    schema = orjson.loads(encoded)
    jsonschema_rs.meta.validate(schema)
    if _count_steps(schema) > MAX_STEPS:
        raise BadRequest(
            "takes too many steps to check, because its references multiply. Refer to each definition less often."
        )
    return jsonschema_rs.validator_for(schema, offline=True, pattern_options=jsonschema_rs.RegexOptions())


def _count_steps(schema: object) -> int:
    """How many subschemas there are when each `$ref` is replaced by what it names, not following circles."""
    known: dict[int, int] = {}  # by identity of the node; 0 while it is being counted

    def count(node: object) -> int:
        counted = known.get(id(node))
        if counted is not None:
            return counted
        if isinstance(node, list):
            known[id(cast("object", node))] = 0
            total = sum(count(item) for item in cast("list[object]", node))
        elif isinstance(node, dict):
            known[id(cast("object", node))] = 0
            held = cast("dict[str, object]", node)
            total = 1 + sum(count(value) for key, value in held.items() if key not in _DEFINITIONS)
            total += count(_follow(schema, held.get("$ref")))
        else:
            return 0
        known[id(cast("object", node))] = total = min(total, MAX_STEPS + 1)
        return total

    try:
        return count(schema)
    except RecursionError:
        return MAX_STEPS + 1


def _follow(schema: object, reference: object) -> object:
    """The part of `schema` that a local reference names; None for others (anchors are rare and not counted)."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    found = schema
    for step in filter(None, reference[1:].split("/")):
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(found, list):
            held = cast("list[object]", found)
            found = held[int(name)] if name.isdigit() and int(name) < len(held) else None
        elif isinstance(found, dict):
            found = cast("dict[str, object]", found).get(name)
        else:
            return None
    return found
