"""From bytes to a JSON object, strictly: what two parsers could read differently is refused."""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar, cast

import orjson
from pydantic import BaseModel, ValidationError

from headgate.core.errors import BadRequest

Model = TypeVar("Model", bound=BaseModel)
DEPTH_MAX = 100  # orjson writes at most 254 levels, and no request needs so many
KEYS_MAX = 2**15  # with lists and objects; a turn with a tool call and its answer has 16
TEXTS_MAX = 2**17  # fields with a limit of their own refuse fewer, and by name
VALUES_MAX = 2**19  # 2048 texts of 256 token ids each
_SMALL_BYTES = 128 * 1024  # whatever fits in here is read in time
_BRANCH = re.compile(r"[\[\]()]|^(constrained|function|literal|model)-")
_BRANCHES = frozenset({"str", "list", "int", "dict", "float", "bool", "none", "ToolChoice"})
_LONG_LIST = 64  # from here on a look at the types of what it holds is cheaper than one at each
_SCALARS = frozenset({int, float, str, bool, type(None)})
_KEY_LIKE = re.compile(rb'"\s*:')


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`. Raises BadRequest on bad UTF-8, NaN, lone surrogates, duplicate keys, deep nesting."""
    # Why before parsing: a megabyte of `[],` takes longer to read and to look at than any refusal may take.
    keys_told = _count_told(body) if len(body) > _SMALL_BYTES and _may_be_much(body) else None
    try:
        parsed: object = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if not body:
            raise BadRequest("The body is empty; send a JSON object.") from None
        raise BadRequest(f"The body is not valid JSON: {error.msg} at byte {error.pos}.") from None
    if not isinstance(parsed, dict):
        raise BadRequest('The body must be a JSON object, such as {"model": ..., "messages": [...]}.')
    found = cast("dict[str, Any]", parsed)
    # Why in steps: every key is followed by a colon, so equal counts prove that no key was lost to a duplicate; only a
    # body with colons after other quotes needs its texts cut out first, and only one with duplicates a slow look.
    keys = _count_keys(found)
    if keys_told is None and len(_KEY_LIKE.findall(body)) != keys:
        keys_told = _count_told(body)
    if keys_told is not None and keys_told != keys:
        _refuse_duplicates(body)
    return found


def validate(model: type[Model], parsed: dict[str, Any]) -> Model:
    """`parsed` as `model`. Raises BadRequest naming the first field that is wrong, what is wrong and what is not."""
    try:
        return model.model_validate(parsed)
    except ValidationError as error:
        # Of a union's branches the one that got furthest is the one that was meant: the one whose items are right
        # but too many, else the deepest.
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        field = problems[0]["loc"][:1]
        here = [problem for problem in problems if problem["loc"][:1] == field]
        first = max(here, key=lambda problem: (problem["type"] == "too_long", len(problem["loc"])))
        param = ".".join(str(step) for step in first["loc"] if not _is_branch(step)) or None
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "model_type":
            message = "Input should be an object"
        raise BadRequest(f"'{param}': {message}." if param else f"{message}.", param=param) from None


def _is_branch(step: object) -> bool:
    """Whether a step of an error's path names a branch of a union, which no client knows."""
    return isinstance(step, str) and (_BRANCH.search(step) is not None or step in _BRANCHES)


def _may_be_much(body: bytes) -> bool:
    """Whether `body` may pass a limit; not, where even with what its texts hold it has too few of each character."""
    parts = body.count(b":") + body.count(b"[") + body.count(b"{")
    return parts > KEYS_MAX or body.count(b'"') > 2 * TEXTS_MAX or body.count(b",") > VALUES_MAX


def _count_told(body: bytes) -> int:
    """How many keys the text of `body` has, duplicates too. Raises BadRequest when it has more parts than any needs."""
    bare = body
    if b"\\" in body:  # backslashes occur in texts only, and in pairs from where a run of them begins
        bare = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    pieces = bare.split(b'"', 2 * TEXTS_MAX)
    if len(pieces) > 2 * TEXTS_MAX:
        raise BadRequest(f"The body has more than {TEXTS_MAX} keys and texts; send less in one request.")
    outside = b"".join(pieces[::2])
    keys = outside.count(b":")
    if keys + outside.count(b"[") + outside.count(b"{") > KEYS_MAX:
        raise BadRequest(f"The body has more than {KEYS_MAX} keys, lists and objects; send less in one request.")
    if outside.count(b",") > VALUES_MAX:
        raise BadRequest(f"The body has more than {VALUES_MAX} values; send less in one request.")
    return keys


def _count_keys(value: object) -> int:
    """How many keys all objects in `value` have. Raises BadRequest when it is nested too deep."""
    count = depth = 0
    level: list[object] = [value]
    while level:
        depth += 1
        if depth > DEPTH_MAX:
            raise BadRequest(f"The body is nested deeper than {DEPTH_MAX} levels; send a flatter object.")
        within: list[object] = []
        for item in level:
            kind = type(item)
            if kind is dict:
                held = cast("dict[str, object]", item)
                count += len(held)
                within.extend(held.values())
            elif kind is list:
                listed = cast("list[object]", item)
                if len(listed) < _LONG_LIST or not _SCALARS.issuperset(map(type, listed)):
                    within.extend(listed)
        level = within
    return count


def _refuse_duplicates(body: bytes) -> None:
    def collect(pairs: list[tuple[str, object]]) -> dict[str, object]:
        collected = dict(pairs)
        if len(collected) != len(pairs):
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))
            raise BadRequest(f"The key {twice[:80]!r} occurs twice in one object; send it once.", param=twice[:80])
        return collected

    json.loads(body, object_pairs_hook=collect)
