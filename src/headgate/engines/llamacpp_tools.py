"""Tool calls that must be made: what llama.cpp is asked for, and its answer as tool calls. Pure.

Why not llama.cpp's own way: its server takes `tool_choice: required` and then leaves the model free with many chat
templates, and takes a named function for `auto`. Source: llama.cpp issue 27217 and pull request 26849 (2026). A JSON
schema is kept, so the call is asked for as one.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import orjson

from headgate.core.errors import BadRequest, SchemaViolation
from headgate.engines.json_values import as_object


def demanded_tools(body: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The tools one of which must be called; None where the model may choose. Raises BadRequest on a name unknown."""
    tools, choice = body.get("tools"), body.get("tool_choice")
    if not tools or choice in (None, "auto", "none"):
        return None
    if isinstance(choice, dict):
        name = as_object(as_object(choice).get("function")).get("name")
        tools = [tool for tool in tools if tool["function"]["name"] == name]
        if not tools:
            raise BadRequest("tool_choice names a function that is not in tools. Add it there.", param="tool_choice")
    return tools


def tool_schema(tools: list[dict[str, Any]]) -> dict[str, Any]:
    """The schema of one call of one of `tools`."""
    calls: list[dict[str, Any]] = []
    for tool in tools:
        function = tool["function"]
        arguments = function.get("parameters") or {"type": "object"}
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": function["name"]}, "arguments": arguments},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    return calls[0] if len(calls) == 1 else {"anyOf": calls}


def tool_messages(messages: list[Any], tools: list[dict[str, Any]]) -> list[Any]:
    """`messages` with the tools told in words: a request with tools takes no schema."""
    told = orjson.dumps([tool["function"] for tool in tools]).decode()
    text = f'Answer with one JSON object {{"name": ..., "arguments": ...}} that calls one of these functions: {told}'
    return [{"role": "system", "content": text}, *messages]


def read_tool_call(text: str) -> list[dict[str, Any]]:
    """The call that `text` holds, in OpenAI's shape. Raises SchemaViolation when it was cut off."""
    try:
        call = orjson.loads(text)
        arguments = orjson.dumps(call["arguments"]).decode()
        function = {"name": call["name"], "arguments": arguments}
    except (ValueError, KeyError, TypeError) as error:
        raise SchemaViolation("The call of the tool was not complete. Raise max_tokens.", param="max_tokens") from error
    number = blake2b(text.encode(), digest_size=8).hexdigest()
    return [{"index": 0, "id": f"call_{number}", "type": "function", "function": function}]
