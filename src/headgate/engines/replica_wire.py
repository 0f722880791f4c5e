"""The OpenAI wire as our own replicas answer it: a finished Answer becomes one JSON body or a list of events.

Knows nothing of how an answer comes about or of sockets. The same extras as llama.cpp's server sends: token ids in the
logprobs and prompt progress, when asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from headgate.core.chat import FinishReason
from headgate.engines.json_values import as_object

DONE = b"data: [DONE]\n\n"


class Refused(Exception):
    """A request that is not valid; holds the error body."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.body = body


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One token of an answer: its id, text, log probability and the likeliest alternatives (itself among them)."""

    id: int
    text: str
    logprob: float = 0.0
    others: tuple[tuple[int, str, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer: its tokens, why it ends, tool calls instead of text, the length of its prompt in tokens."""

    tokens: list[Token] = field(repr=False)
    finish: FinishReason
    prompt_tokens: int
    tool_calls: list[dict[str, Any]] | None = None

    @property
    def usage(self) -> dict[str, Any]:
        """Token counts in OpenAI's shape."""
        count = len(self.tokens)
        return {
            "completion_tokens": count,
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": count + self.prompt_tokens,
            "prompt_tokens_details": {"cached_tokens": 0},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What of the wire a request asks for. `top` is alternatives a token, None without logprobs."""

    chat: bool
    stream: bool
    usage: bool
    progress: bool
    top: int | None
    model: str


def read_wish(chat: bool, body: dict[str, Any]) -> Wish:
    """What a request body asks of the wire. Raises TypeError or ValueError when a field has the wrong type."""
    logprobs = body.get("logprobs")
    top: int | None = None
    if chat and logprobs:
        top = int(body.get("top_logprobs") or 0)
    elif body.get("n_probs"):
        top = int(body["n_probs"])
    elif not chat and logprobs is not None and logprobs is not False:
        top = int(logprobs)
    return Wish(
        chat=chat,
        stream=bool(body.get("stream")),
        usage=bool(as_object(body.get("stream_options")).get("include_usage")),
        progress=bool(body.get("return_progress")),
        top=top,
        model=str(body.get("model") or ""),
    )


def render_body(answer: Answer, wish: Wish, created: int) -> bytes:
    """The whole answer as one JSON body."""
    text = "".join([token.text for token in answer.tokens])
    logprobs = None if wish.top is None else {"content": [_entry(token, wish.top) for token in answer.tokens]}
    if wish.chat:
        message: dict[str, Any] = {"role": "assistant", "content": None if answer.tool_calls else text}
        if answer.tool_calls:
            message["tool_calls"] = answer.tool_calls
        choice = {"index": 0, "message": message, "finish_reason": answer.finish, "logprobs": logprobs}
    else:
        choice = {"index": 0, "text": text, "finish_reason": answer.finish, "logprobs": logprobs}
    return orjson.dumps(
        {
            "id": "replica",
            "object": "chat.completion" if wish.chat else "text_completion",
            "created": created,
            "model": wish.model,
            "choices": [choice],
            "usage": answer.usage,
        }
    )


class EventRenderer:
    """Renders the events of one streamed answer, in the order: start, progress, tokens, end."""

    __slots__ = ("_head", "_tail", "_wish")

    def __init__(self, wish: Wish, created: int) -> None:
        self._wish = wish
        kind = "chat.completion.chunk" if wish.chat else "text_completion"
        model = orjson.dumps(wish.model)
        self._head = b'data: {"id":"replica","object":"%s","created":%d,"model":%s,"choices":[' % (
            kind.encode(),
            created,
            model,
        )
        self._tail = b"]}\n\n"

    def start(self) -> bytes:
        """The first event of a chat: the role."""
        if not self._wish.chat:
            return b""
        choice = b'{"index":0,"delta":{"role":"assistant","content":null},"finish_reason":null}'
        return self._head + choice + self._tail

    def progress(self, processed: int, total: int) -> bytes:
        """How much of the prompt has been read, in tokens; nothing unless asked for."""
        if not self._wish.progress:
            return b""
        empty = b'"delta":{}' if self._wish.chat else b'"text":""'
        told = b'"prompt_progress":{"total":%d,"cache":0,"processed":%d,"time_ms":0}' % (total, processed)
        return b'%s{"index":0,%s,"finish_reason":null}],%s}\n\n' % (self._head, empty, told)

    def tokens(self, tokens: Iterable[Token]) -> bytes:
        """One event a token."""
        head, tail, wish = self._head, self._tail, self._wish
        before = b'{"index":0,"delta":{"content":' if wish.chat else b'{"index":0,"text":'
        after = b'},"finish_reason":null}' if wish.chat else b',"finish_reason":null}'
        if wish.top is None:
            head, tail = head + before, after + tail
            return b"".join([head + orjson.dumps(token.text) + tail for token in tokens])
        middle = b'},"finish_reason":null,"logprobs":' if wish.chat else b',"finish_reason":null,"logprobs":'
        return b"".join(
            [
                head + before + orjson.dumps(token.text) + middle
                + orjson.dumps({"content": [_entry(token, wish.top)]}) + b"}" + tail
                for token in tokens
            ]
        )  # fmt: skip

    def end(self, answer: Answer) -> bytes:
        """The tool calls if any, the reason of the end, the usage if asked for, and [DONE]."""
        parts: list[bytes] = []
        if answer.tool_calls:
            calls = [{"index": index, **call} for index, call in enumerate(answer.tool_calls)]
            parts += [self._head, b'{"index":0,"delta":{"tool_calls":', orjson.dumps(calls)]
            parts += [b'},"finish_reason":null}', self._tail]
        empty = b'"delta":{}' if self._wish.chat else b'"text":""'
        parts += [
            self._head,
            b'{"index":0,%s,"finish_reason":"%s"}' % (empty, answer.finish.encode()),
            self._tail,
        ]
        if self._wish.usage:
            parts += [self._head, b'],"usage":', orjson.dumps(answer.usage), b"}\n\n"]
        parts.append(DONE)
        return b"".join(parts)


def cut_at_stop(tokens: list[Token], stops: list[str]) -> tuple[list[Token], bool]:
    """The tokens up to the first of `stops`, and whether one was met."""
    text = "".join([token.text for token in tokens])
    ends = [at for at in (text.find(stop) for stop in stops if stop) if at >= 0]
    if not ends:
        return tokens, False
    left, kept = min(ends), list[Token]()
    for token in tokens:
        if left <= 0:
            break
        kept.append(token if len(token.text) <= left else _part(token, 0, left))
        left -= len(token.text)
    return kept, True


def skip_text(tokens: list[Token], text: str) -> list[Token]:
    """The tokens after `text`, which must be how the answer begins."""
    whole = "".join([token.text for token in tokens])
    if not whole.startswith(text):
        raise Refused(render_error("invalid_request_error", "this answer does not begin so"))
    left = len(text)
    for index, token in enumerate(tokens):
        if left < len(token.text):
            return [_part(token, left, None), *tokens[index + 1 :]] if left else tokens[index:]
        left -= len(token.text)
    return []


def render_embeddings(rows: list[list[float]], prompt_tokens: int, model: str) -> bytes:
    """Embeddings as one JSON body."""
    data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)]
    usage = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
    return orjson.dumps({"object": "list", "model": model, "data": data, "usage": usage})


def render_error(kind: str, message: str, code: int = 400, **more: Any) -> bytes:
    """An error body. `message` never quotes what was asked."""
    return orjson.dumps({"error": {"message": message, "type": kind, "code": code, **more}})


def _entry(token: Token, top: int) -> dict[str, Any]:
    others = [
        {"id": id, "token": text, "bytes": list(text.encode()), "logprob": value} for id, text, value in token.others
    ]
    return {
        "id": token.id,
        "token": token.text,
        "bytes": list(token.text.encode()),
        "logprob": token.logprob,
        "top_logprobs": others[:top],
    }


def _part(token: Token, start: int, end: int | None) -> Token:
    return Token(id=token.id, text=token.text[start:end], logprob=token.logprob, others=token.others)
