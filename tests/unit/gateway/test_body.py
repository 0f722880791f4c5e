"""Strict JSON: whatever two parsers could read differently is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.core.errors import BadRequest
from headgate.gateway.wire.body import DEPTH_MAX, parse_object


def has_duplicates(text: str) -> bool:
    """What Python's parser calls a duplicate key."""
    found: list[bool] = []

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found.append(len({name for name, _ in pairs}) != len(pairs))
        return dict(pairs)

    json.loads(text, object_pairs_hook=collect)
    return any(found)


KEYS = st.sampled_from(["a", "b", '"', '":', "\\", '\\":', "a:", "é", "\n", 'a" :', ""])
# Past 64 bits our parser reads the nearest float, as RFC 8259 section 6 lets it; Python's own does not.
NUMBERS = st.integers(-(2**63), 2**64 - 1)
SPACES = st.sampled_from(["", " ", "\n", "\t ", "\r\n"])


@st.composite
def texts(draw: st.DrawFn, depth: int = 3) -> str:
    """JSON texts whose keys and values are full of what looks like the end of a key."""
    kind = draw(st.integers(0, 3)) if depth else 0
    if kind == 0:
        return json.dumps(draw(KEYS | NUMBERS | st.booleans() | st.none()), ensure_ascii=draw(st.booleans()))
    if kind == 1:
        return "[" + ",".join(draw(st.lists(texts(depth - 1), max_size=3))) + "]"
    return draw(objects(depth))


@st.composite
def objects(draw: st.DrawFn, depth: int = 3) -> str:
    members: list[str] = []
    for _ in range(draw(st.integers(0, 4))):
        key = json.dumps(draw(KEYS), ensure_ascii=draw(st.booleans()))
        members.append(f"{draw(SPACES)}{key}{draw(SPACES)}:{draw(SPACES)}{draw(texts(depth - 1))}{draw(SPACES)}")
    return "{" + ",".join(members) + "}"


@given(objects())
@settings(max_examples=300, deadline=None)
def test_exactly_duplicates_are_refused(text: str) -> None:
    if has_duplicates(text):
        with pytest.raises(BadRequest, match="twice"):
            parse_object(text.encode())
    else:
        assert parse_object(text.encode()) == json.loads(text)


def test_keys_that_differ_only_in_how_they_are_written() -> None:
    with pytest.raises(BadRequest) as caught:
        parse_object(rb'{"model": 1, "mod\u0065l": 2}')
    assert caught.value.param == "model"


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b'"x"', b"1", b"{", b"{'a': 1}", b'{"a": NaN}', b'{"a": Infinity}', b'{"a": 1e999}',
     b'{"a": "\xff"}', b'{"a": "\\ud800"}', b'{"a": 01}', b'{"a": 1,}', b'{"a": 1} x',
     b'\xef\xbb\xbf{}', b'{"a": "\n"}'],
)  # fmt: skip
def test_what_is_no_strict_object(body: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_object(body)
    assert caught.value.status == 400 and caught.value.message.endswith(".")


def test_depth() -> None:
    def nested(depth: int) -> bytes:
        return b'{"a":' * depth + b"1" + b"}" * depth

    assert parse_object(nested(DEPTH_MAX - 1))
    for depth in (DEPTH_MAX + 1, 900, 100_000):
        with pytest.raises(BadRequest):
            parse_object(nested(depth))


def test_huge_numbers_lose_no_request() -> None:
    assert parse_object(b'{"a": 18446744073709551615}') == {"a": 2**64 - 1}
    assert isinstance(parse_object(b'{"a": 1%s}' % (b"0" * 300))["a"], float)
