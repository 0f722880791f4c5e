"""The splitter gives the same payloads however the bytes are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.core.errors import UpstreamFailed
from headgate.engines import sse
from headgate.engines.sse import EventSplitter

STREAM = (
    b': hello\n\ndata: {"a":1}\n\ndata:{"b":2}\r\n\r\nevent: x\nid: 7\ndata: one\ndata: two\n\n'
    b"data\n\ndata: [DONE]\n\ndata: late\n\n"
)
PAYLOADS = [b'{"a":1}', b'{"b":2}', b"one\ntwo", b""]


def split(pieces: list[bytes]) -> list[bytes]:
    splitter = EventSplitter()
    found = [payload for piece in pieces for payload in splitter.feed(piece)]
    assert splitter.done
    return found


def test_splits_whole_events_in_one_piece() -> None:
    assert split([b'data: {"a":1}\n\ndata: {"b":2}\n\ndata: [DONE]\n\n']) == [b'{"a":1}', b'{"b":2}']


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_splits_the_same_however_the_bytes_are_cut(cuts: list[int]) -> None:
    edges = sorted({0, len(STREAM), *cuts})
    pieces = [STREAM[start:end] for start, end in pairwise(edges)]
    assert split(pieces) == PAYLOADS


def test_splits_byte_by_byte() -> None:
    assert split([STREAM[at : at + 1] for at in range(len(STREAM))]) == PAYLOADS


def test_keeps_nothing_after_done() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b"data: a\n\ndata: [DONE]\n\ndata: b\n\n") == [b"a"]
    assert splitter.feed(b"data: c\n\n") == []


def test_refuses_an_event_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "EVENT_BYTES_MAX", 100)
    splitter = EventSplitter()
    with pytest.raises(UpstreamFailed):
        for _ in range(20):
            splitter.feed(b"data: xxxxxxxx"[:10])
