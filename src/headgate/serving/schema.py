"""Checks constrained answers before they are delivered: an engine's grammar can fail open.

References are never fetched, and patterns run in linear time, because schemas come from clients.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast
from urllib.parse import unquote

import jsonschema_rs
import orjson

from headgate.core.chat import Call
from headgate.core.errors import AnswerCut, BadRequest, SchemaViolation

MAX_SCHEMA_BYTES = 256 * 1024
MAX_STEPS = 5_000
"""Subschemas with every $ref written out. Why a limit: 40 definitions that refer twice to the one before take 2**40.
It is what OpenAI's structured outputs allow. Source: platform.openai.com/docs/guides/structured-outputs, 5,000 object
properties in one schema (February 2026)."""
MAX_STEPS_RECURSIVE = 1_000
"""The same in a schema that refers to itself: each part of an answer may take them all."""
MAX_STEPS_TOGETHER = 10_000
"""The same in all tools of one request."""
MAX_PATTERN_BYTES = 256 * 1024
"""One pattern when compiled. Why a limit: `\\pL{1,500}` is short, and takes a tenth of a second."""
_TELL_STEPS = 2_000
"""Subschemas times parts of the answer up to which the place of a violation is looked for."""
_PATTERN_STEPS = 200  # what compiling the largest pattern takes, in subschemas compiled in the same time
_ENUM_STEP = 16  # plain values of an enum that are compared in the time of one subschema
_ONE = frozenset(
    {"not", "if", "then", "else", "items", "additionalItems", "additionalProperties", "contains", "propertyNames"}
    | {"unevaluatedItems", "unevaluatedProperties", "contentSchema"}
)
_HOLDERS = (dict, list)
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems", "items"})
_NAMED = frozenset({"properties", "patternProperties", "dependentSchemas", "dependencies"})
_REPEAT = re.compile(r"([)}]?)\{(\d{1,9})?,?(\d{1,9})?\}")
_UNICODE = re.compile(r"\\[pP]")
_NEGATED = re.compile(r"\\[WDS]|\[\^|\[\[:|\.|[^\x00-\x7f]")
_VERBOSE = re.compile(r"\(\?[a-zA-Z-]*x")  # counts may then be written in ways that are not looked for


def check_schema(schema: dict[str, Any], param: str, steps_left: int = MAX_STEPS_TOGETHER) -> int:
    """The steps that `schema` takes, when it is a JSON schema that can be enforced. Raises BadRequest naming `param`.

    `steps_left` are those that the request's other schemas left.
    """
    encoded = orjson.dumps(schema)
    if len(encoded) > MAX_SCHEMA_BYTES:
        raise BadRequest(f"'{param}' is larger than {MAX_SCHEMA_BYTES} bytes; use a smaller schema.", param=param)
    return _compile_or_refuse(encoded, param, steps_left).steps


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
        _check_value(call.schema, answer, text)
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
            text = function.get("arguments") or "{}"
            arguments = orjson.loads(text)
        except orjson.JSONDecodeError:
            raise SchemaViolation("The model's tool arguments are not valid JSON. Retry.") from None
        if declared.get("strict") and declared.get("parameters"):
            _check_value(declared["parameters"], arguments, text)


def _check_value(schema: dict[str, Any], value: object, text: str) -> None:
    compiled = _compile_or_refuse(orjson.dumps(schema), "response_format", MAX_STEPS_TOGETHER)
    # Why not the errors at once: asking for them walks every branch anew, which takes 2**depth in a schema that refers
    # to itself; the plain verdict remembers what it saw.
    if compiled.validator.is_valid(value):
        return
    where = ""
    parts = 1 + text.count(",") + text.count(":") + text.count("[")
    if not compiled.recursive and compiled.steps * parts <= _TELL_STEPS:
        error = next(compiled.validator.iter_errors(value), None)
        steps = "/".join(str(step) for step in error.instance_path) if error is not None else ""
        where = f" at {steps or 'the top level'}"
    raise SchemaViolation(f"The model's answer does not fit the schema{where}. Retry, or ease the schema.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compiled:
    validator: Any
    steps: int
    recursive: bool


def _compile_or_refuse(encoded: bytes, param: str, steps_left: int) -> _Compiled:
    try:
        compiled = _compile(encoded)
        if compiled.steps > steps_left:
            raise BadRequest(
                f"and the schemas before it take more than {MAX_STEPS_TOGETHER} steps to check. "
                "Send fewer or smaller tools."
            )
        return compiled
    except BadRequest as error:
        raise BadRequest(f"'{param}' {error.message}", param=param) from None
    except jsonschema_rs.ValidationError as error:
        # The library's own words quote the schema, which is part of the prompt.
        where = "/".join(str(step)[:40] for step in error.instance_path)[:200] or "its top level"
        pattern = f" (a pattern may take {MAX_PATTERN_BYTES} bytes compiled)" if where.endswith("pattern") else ""
        raise BadRequest(f"'{param}' is not a valid JSON schema: see {where}{pattern}.", param=param) from None
    except jsonschema_rs.ReferencingError:
        raise BadRequest(
            f"'{param}' is not a valid JSON schema: a $ref leads nowhere, or out of the schema.", param=param
        ) from None
    except ValueError as error:
        raise BadRequest(f"'{param}' is not a valid JSON schema ({type(error).__name__}).", param=param) from None


@lru_cache(maxsize=256)
def _compile(encoded: bytes) -> _Compiled:
    schema = orjson.loads(encoded)
    steps, recursive = _weigh(schema, encoded)
    jsonschema_rs.meta.validate(schema)
    options = jsonschema_rs.RegexOptions(size_limit=MAX_PATTERN_BYTES)
    validator = jsonschema_rs.validator_for(schema, offline=True, pattern_options=options)
    return _Compiled(validator=validator, steps=steps, recursive=recursive)


def _weigh(schema: dict[str, Any], encoded: bytes) -> tuple[int, bool]:
    """The steps of a schema, and whether it refers to itself. Raises BadRequest when they are too many to enforce."""
    # An inner $id would give another meaning to the references below it, and steps would be counted in the wrong place.
    for name in ("$id", "id") if "draft-0" in str(schema.get("$schema")) else ("$id",):
        if encoded.count(f'"{name}":"'.encode()) > isinstance(schema.get(name), str):
            raise BadRequest(f"has a part with its own '{name}'. Leave it out, and refer to the part by '#/...'.")
    walk = _Walk(schema)
    try:
        steps = walk.count(schema)
    except RecursionError:
        raise BadRequest("is a chain of too many references. Write some of them out.") from None
    most = MAX_STEPS_RECURSIVE if walk.recursive else MAX_STEPS
    if steps > most:
        raise BadRequest(
            f"takes more than {most} steps to check: subschemas, counted again wherever a $ref repeats them"
            f"{' in a schema that refers to itself' if walk.recursive else ''}. "
            "Refer to each definition less often, or use a smaller schema."
        )
    return steps, walk.recursive


class _Walk:
    """Counts the subschemas there are when each `$ref` is replaced by what it names, not following circles."""

    def __init__(self, schema: object) -> None:
        self.recursive = False
        self._schema = schema
        self._known: dict[int, int] = {}  # by identity of the node; 0 while it is being counted

    def count(self, node: object) -> int:
        """The steps of `node`, or some number past the limit. Raises BadRequest for a reference that leads out."""
        if not isinstance(node, dict):
            return 0 if node is None else 1
        counted = self._known.get(id(cast("object", node)))
        if counted is not None:
            self.recursive = self.recursive or counted == 0
            return counted
        self._known[id(cast("object", node))] = 0
        total = 1
        for key, value in cast("dict[str, object]", node).items():
            total += self._count_keyword(key, value)
            if total > MAX_STEPS:
                break
        self._known[id(cast("object", node))] = total
        return total

    def _count_keyword(self, key: str, value: object) -> int:
        if isinstance(value, str):
            if key == "$ref":
                return self.count(_follow(self._schema, value))
            if key in ("$dynamicRef", "$recursiveRef"):
                raise BadRequest(f"uses '{key}', which is not followed here. Use '$ref' with '#/...'.")
            return _pattern_steps(value) if key == "pattern" else 0
        if isinstance(value, dict):
            held = cast("dict[str, object]", value)
            if key in _ONE:
                return self.count(held)
            if key in _NAMED:
                patterns = sum(map(_pattern_steps, held)) if key == "patternProperties" else 0
                return patterns + self._sum(held.values())
        elif isinstance(value, list):
            listed = cast("list[object]", value)
            if key in _LISTS:
                return self._sum(listed)
            if key == "enum":
                return len(listed) // _ENUM_STEP + sum(type(item) in _HOLDERS for item in listed)
        return 0

    def _sum(self, nodes: Iterable[object]) -> int:
        total = 0
        for node in nodes:
            total += self.count(node)
            if total > MAX_STEPS:
                break
        return total


def _pattern_steps(pattern: str) -> int:
    """What compiling `pattern` takes, roughly: it grows with length, counted repeats and Unicode classes."""
    text = pattern[: 8 * MAX_STEPS]
    total = _PATTERN_STEPS if _VERBOSE.search(text) else 0
    for repeated, least, most in _REPEAT.findall(text):
        total += _PATTERN_STEPS if repeated else int(most or least or 0) // 2
    total += 30 * len(_UNICODE.findall(text)) + 8 * len(_NEGATED.findall(text))
    return 5 + len(pattern) // 8 + min(_PATTERN_STEPS, total)


def _follow(schema: object, reference: str) -> object:
    """The part of `schema` that a local reference names; None where it leads nowhere. Raises BadRequest for others."""
    if reference == "#":
        return schema
    if not reference.startswith("#/"):
        raise BadRequest("has a $ref that is not '#' and does not begin with '#/'. Move what it names into '$defs'.")
    found = schema
    for step in reference[2:].split("/"):
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(found, list):
            held = cast("list[object]", found)
            found = held[int(name)] if name.isdecimal() and len(name) < 7 and int(name) < len(held) else None
        elif isinstance(found, dict):
            found = cast("dict[str, object]", found).get(name)
        else:
            return None
    return found
