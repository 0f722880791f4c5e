"""Checks constrained answers before they are delivered: an engine's grammar can fail open.

References are never fetched, and patterns run in linear time, because schemas come from clients.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jsonschema_rs
import orjson

from headgate.core.chat import Call
from headgate.core.errors import BadRequest, SchemaViolation

MAX_SCHEMA_BYTES = 256 * 1024


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
        raise SchemaViolation(
            "The answer reached its limit (max_tokens or the context) before it was complete JSON. Raise max_tokens, "
            "or ease the schema."
        )
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
    except (ValueError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise BadRequest(f"'{param}' is not a valid JSON schema: {reason}", param=param) from None


@lru_cache(maxsize=256)
def _compile(encoded: bytes) -> Any:
    schema = orjson.loads(encoded)
    jsonschema_rs.meta.validate(schema)
    return jsonschema_rs.validator_for(schema, offline=True, pattern_options=jsonschema_rs.RegexOptions())
