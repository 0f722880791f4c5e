from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.core.errors import ModelRefused
from headgate.registry.sources import (
    BundledSource,
    EndpointSource,
    FakeSource,
    HubSource,
    LocalSource,
    WebSource,
    allows,
    is_loopback,
    parse_source,
    shown,
)

PIN = "ab" * 32
GOOD = {
    "/models/a.gguf": LocalSource(path=Path("/models/a.gguf")),
    "./a b.gguf": LocalSource(path=Path("./a b.gguf")),
    "hf:owner/repo/a.gguf": HubSource(owner="owner", repo="repo", revision=None, file="a.gguf"),
    "hf:o-1/r.2@main/sub/a.gguf": HubSource(owner="o-1", repo="r.2", revision="main", file="sub/a.gguf"),
    "hf:o/r@refs%2Fpr%2F1/a.gguf": HubSource(owner="o", repo="r", revision="refs/pr/1", file="a.gguf"),
    "https://a.example/m.gguf": WebSource(url="https://a.example/m.gguf", sha256=None),
    f"https://a.example/m.gguf?x=1#sha256={PIN}": WebSource(url="https://a.example/m.gguf?x=1", sha256=PIN),
    "http://127.0.0.1:99/m.gguf": WebSource(url="http://127.0.0.1:99/m.gguf", sha256=None),
    "bundled:ticket-extract": BundledSource(name="ticket-extract"),
    "fake:": FakeSource(settings={}),
    "fake:task=embed&seed=3": FakeSource(settings={"task": "embed", "seed": "3"}),
    "endpoint:https://a.example/v1/": EndpointSource(url="https://a.example/v1"),
}


@pytest.mark.parametrize("text", GOOD)
def test_every_form(text: str) -> None:
    assert parse_source(text) == GOOD[text]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "a\0b",
        "x" * 5000,
        "hf:owner/repo",
        "hf:owner",
        "hf:o/r/../../x",
        "hf:o/r@main",
        "ftp://a.example/m",
        "http://a.example/m.gguf",
        "https://",
        "https:///m.gguf",
        "https://user:pass@a.example/m",
        "https://token@a.example/m",
        "https://a.example:99999/m",
        "https://a.example/m.gguf#sha256=abc",
        "https://a.example/m.gguf#md5=" + PIN,
        "https://a.example/a b",
        "https://a.example/a\r\nHost: b",
        "https://[::1/m",
        "bundled:../x",
        "fake:=1",
        "fake:a",
        "fake:a=1&a=2",
        "fake:__class__=1",
        "endpoint:a.example/v1",
        "endpoint:ftp://a/v1",
        "endpoint:https://a/v1?key=1",
        "s3://bucket/x",
    ],
)
def test_everything_else_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(ModelRefused, match="Write a path, hf:") as caught:
        parse_source(text)
    assert "pass@" not in caught.value.message and "token@" not in caught.value.message


def test_hosts() -> None:
    assert allows(("huggingface.co", "*.hf.co"), "cdn.hf.co")
    assert not allows(("huggingface.co", "*.hf.co"), "hf.co")
    assert not allows(("huggingface.co",), "evilhuggingface.co")
    assert not allows(("huggingface.co",), "huggingface.co.evil.example")
    assert is_loopback("localhost") and is_loopback("127.9.9.9") and is_loopback("::1")
    assert not is_loopback("localhost.example") and not is_loopback("0.0.0.0")


def test_secrets_of_a_url_are_not_shown() -> None:
    assert shown("https://a.example/m.gguf?signature=secret") == "https://a.example/m.gguf"
    assert "secret" not in repr(parse_source("https://a.example/m.gguf?signature=secret"))


@given(st.text(max_size=60))
def test_any_text_is_a_source_or_refused(text: str) -> None:
    for prefix in ("", "hf:", "https:", "https://", "fake:", "endpoint:", "bundled:"):
        try:
            parse_source(prefix + text)
        except ModelRefused as error:
            assert error.param == "source"
