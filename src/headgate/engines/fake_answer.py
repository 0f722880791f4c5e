"""What the fake engine answers: text that depends on seed and prompt alone, and instances of schemas. Pure."""

from __future__ import annotations

from hashlib import blake2b
from math import sqrt
from typing import Any

import orjson

from headgate.engines.json_values import as_list, as_object
from headgate.engines.replica_wire import Token

_STEMS = [
    "river",
    "gate",
    "canal",
    "water",
    "field",
    "lock",
    "weir",
    "sluice",
    "brook",
    "pond",
    "bank",
    "stone",
    "reed",
    "heron",
    "mill",
    "barge",
    "tide",
    "rain",
    "lake",
]
_ENDS = ["", "-side", "-way", "-head", "-mark", "-keeper", "-song", "-light", "-mouth", "-bed", "-café", "-grün"]
WORDS = tuple(f" {stem}{end}" for stem in _STEMS for end in _ENDS)
_NONSENSE = "{nonsense: this is not what the schema asked for"
_DEPTH_MAX = 16


def count_tokens(text: str) -> int:
    """How many tokens the fake engine takes `text` for: one per four bytes, at least one."""
    return len(text.encode()) // 4 + 1


def draw_words(seed: int, prompt: bytes, count: int) -> list[Token]:
    """`count` words that depend on seed and prompt alone; more words go on where fewer end."""
    tokens: list[Token] = []
    size = len(WORDS)
    block = b""
    for position in range(count):
        offset = (position % 32) * 2
        if offset == 0:
            block = blake2b(prompt, salt=b"%016x" % (seed % 2**64), person=b"%016x" % (position // 32)).digest()
        tokens.append(_WORD_TOKENS[(block[offset] << 8 | block[offset + 1]) % size])
    return tokens


def cut_text(text: str) -> list[Token]:
    """`text` as tokens of at most four characters."""
    pieces = [text[start : start + 4] for start in range(0, len(text), 4)]
    return [
        _token(len(WORDS) + int.from_bytes(blake2b(piece.encode(), digest_size=2).digest(), "big"), piece)
        for piece in pieces
    ]


def make_instance(schema: Any, *, root: Any = None, depth: int = 0) -> Any:
    """A small instance of a JSON schema: the usual keywords are kept, others are not looked at."""
    root = schema if root is None else root
    schema = as_object(schema)
    if depth > _DEPTH_MAX or not schema:
        return None
    if "$ref" in schema:
        return make_instance(_follow(root, str(schema["$ref"])), root=root, depth=depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for keyword in ("anyOf", "oneOf", "allOf"):
        if schema.get(keyword):
            return make_instance(schema[keyword][0], root=root, depth=depth + 1)
    kind = schema.get("type")
    kind = (as_list(kind) or [kind])[0]
    if kind == "object" or (kind is None and "properties" in schema):
        properties = as_object(schema.get("properties"))
        names = as_list(schema.get("required")) or list(properties)
        return {name: make_instance(properties.get(name, {}), root=root, depth=depth + 1) for name in names}
    if kind == "array":
        return [
            make_instance(schema.get("items"), root=root, depth=depth + 1) for _ in range(schema.get("minItems", 0))
        ]
    return _make_scalar(kind, schema)


def nonsense() -> str:
    """What a model says that ignores its schema."""
    return _NONSENSE


def embed_text(text: str, dimensions: int) -> list[float]:
    """A unit vector that depends on the text alone."""
    raw = b""
    block = 0
    while len(raw) < dimensions * 2:
        raw += blake2b(text.encode(), person=b"%016x" % block).digest()
        block += 1
    values = [int.from_bytes(raw[2 * at : 2 * at + 2], "big") / 32768.0 - 1.0 for at in range(dimensions)]
    length = sqrt(sum(value * value for value in values)) or 1.0
    return [value / length for value in values]


def prompt_key(value: Any) -> bytes:
    """The bytes of a prompt or of messages that an answer depends on."""
    return value.encode() if isinstance(value, str) else orjson.dumps(value)


def _make_scalar(kind: Any, schema: dict[str, Any]) -> Any:
    if kind in ("integer", "number"):
        low = schema.get("minimum", schema.get("exclusiveMinimum", 0))
        high = schema.get("maximum", schema.get("exclusiveMaximum"))
        value = max(0, low) if high is None else min(max(0, low), high)
        step = 1 if kind == "integer" else 0.5
        if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
            value = schema["exclusiveMinimum"] + step
        if "exclusiveMaximum" in schema and value >= schema["exclusiveMaximum"]:
            value = schema["exclusiveMaximum"] - step
        multiple = schema.get("multipleOf")
        return value if not multiple else -(-value // multiple) * multiple
    if kind == "boolean":
        return True
    if kind == "null":
        return None
    text = "gate"[: schema.get("maxLength", 4)]
    return text + "x" * max(0, schema.get("minLength", 0) - len(text))


def _follow(root: Any, reference: str) -> Any:
    found = root
    for name in reference.removeprefix("#").strip("/").split("/"):
        if name:
            found = as_object(found).get(name.replace("~1", "/").replace("~0", "~"))
    return found


def _token(number: int, text: str) -> Token:
    logprob = -0.05 * (1 + number % 7)
    second, third = (number + 1) % len(WORDS), (number + 2) % len(WORDS)
    others = (
        (number, text, logprob),
        (second, WORDS[second], logprob - 1.0),
        (third, WORDS[third], logprob - 2.0),
    )
    return Token(id=number, text=text, logprob=logprob, others=others)


_WORD_TOKENS = tuple(_token(number, text) for number, text in enumerate(WORDS))
