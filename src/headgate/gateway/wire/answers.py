"""Answers in OpenAI's shape: whole ones, and the chunks of streamed ones. Pure: bytes out, nothing sent.

A writer is made per request; `chunk` is called once per token, so it builds its bytes from parts made beforehand.
"""

from __future__ import annotations

import base64
import struct
from functools import cached_property
from typing import Any, Protocol

import orjson

from headgate.core.chat import Delta
from headgate.core.usage import Usage

DONE = b"data: [DONE]\n\n"


def usage_object(usage: Usage) -> dict[str, Any]:
    """Token counts as OpenAI names them."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.prompt_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


class Collected:
    """The pieces of one choice, put together."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.tool_calls: dict[int, dict[str, Any]] = {}
        self.logprobs: list[dict[str, Any]] = []
        self.legacy_logprobs: dict[str, list[Any]] = {}
        self.finish: str | None = None
        self.embeddings: list[Any] = []

    def add(self, delta: Delta) -> None:
        """Take one more piece."""
        if delta.text:
            self.text.append(delta.text)
        if delta.reasoning:
            self.reasoning.append(delta.reasoning)
        if delta.tool_calls:
            for piece in delta.tool_calls:
                self._add_tool_call(piece)
        if delta.logprobs:
            if isinstance(delta.logprobs.get("content"), list):
                self.logprobs.extend(delta.logprobs["content"])
            else:
                for name, values in delta.logprobs.items():
                    self.legacy_logprobs.setdefault(name, []).extend(values or ())
        if delta.embeddings:
            self.embeddings.extend(delta.embeddings)
        if delta.finish:
            self.finish = delta.finish

    def _add_tool_call(self, piece: dict[str, Any]) -> None:
        whole = self.tool_calls.setdefault(
            piece.get("index", 0), {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        )
        if piece.get("id"):
            whole["id"] = piece["id"]
        function: dict[str, Any] = piece.get("function") or {}
        whole["function"]["name"] += function.get("name") or ""
        whole["function"]["arguments"] += function.get("arguments") or ""

    def message(self) -> dict[str, Any]:
        """The chat message."""
        text = "".join(self.text)
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if self.tool_calls:
            message["tool_calls"] = [self.tool_calls[index] for index in sorted(self.tool_calls)]
            message["content"] = text or None
        if self.reasoning:
            message["reasoning_content"] = "".join(self.reasoning)
        return message


class WholeWriter(Protocol):
    """Writes a whole answer in the shape of its endpoint."""

    def whole(self, choices: list[Collected], usage: Usage) -> bytes:
        """The answer."""
        ...


class AnswerWriter(WholeWriter, Protocol):
    """Writes one request's answer in the shape of its endpoint, whole or streamed."""

    def begin(self) -> bytes:
        """The bytes before the first piece of a stream."""
        ...

    def chunk(self, index: int, delta: Delta) -> bytes:
        """One piece of choice `index`."""
        ...

    def end(self, usage: Usage) -> bytes:
        """The bytes that end a stream."""
        ...

    def fail(self, error: bytes) -> bytes:
        """The bytes that end a stream that broke; `error` is the encoded error object."""
        ...


class ChatWriter:
    """The shape of /v1/chat/completions."""

    def __init__(self, request_id: str, model: str, created: int, choices: int, include_usage: bool) -> None:
        self._id = f"chatcmpl-{request_id}"
        self._model = model
        self._created = created
        self._choices = choices
        self._include_usage = include_usage

    @cached_property
    def _head(self) -> bytes:
        """How every chunk begins; a whole answer needs none."""
        usage = b'"usage":null,' if self._include_usage else b""
        return (
            b'data: {"id":'
            + orjson.dumps(self._id)
            + b',"object":"chat.completion.chunk","created":%d,"model":' % self._created
            + orjson.dumps(self._model)
            + b","
            + usage
            + b'"choices":[{"index":'
        )

    def begin(self) -> bytes:
        """The role of each choice."""
        return b"".join(
            self._head
            + b'%d,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}\n\n' % index
            for index in range(self._choices)
        )

    def chunk(self, index: int, delta: Delta) -> bytes:
        """One piece: text on the fast path, everything else as it comes."""
        if delta.text and not (delta.tool_calls or delta.reasoning or delta.finish or delta.logprobs):
            text = orjson.dumps(delta.text)
            return self._head + b'%d,"delta":{"content":%b},"logprobs":null,"finish_reason":null}]}\n\n' % (
                index,
                text,
            )
        said: dict[str, Any] = {}
        if delta.text:
            said["content"] = delta.text
        if delta.reasoning:
            said["reasoning_content"] = delta.reasoning
        if delta.tool_calls:
            said["tool_calls"] = delta.tool_calls
        if not said and not delta.finish and not delta.logprobs:
            return b""
        rest = {"delta": said, "logprobs": delta.logprobs, "finish_reason": delta.finish}
        return self._head + b"%d," % index + orjson.dumps(rest)[1:] + b"]}\n\n"

    def end(self, usage: Usage) -> bytes:
        """Usage where it was asked for, then [DONE]."""
        if not self._include_usage:
            return DONE
        last: dict[str, Any] = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
            "choices": [],
            "usage": usage_object(usage),
        }
        return b"data: " + orjson.dumps(last) + b"\n\n" + DONE

    def fail(self, error: bytes) -> bytes:
        """An error event; no [DONE] follows, so that nobody takes the answer for whole."""
        return b"data: " + error + b"\n\n"

    def whole(self, choices: list[Collected], usage: Usage) -> bytes:
        """A chat.completion object."""
        return orjson.dumps(
            {
                "id": self._id,
                "object": "chat.completion",
                "created": self._created,
                "model": self._model,
                "choices": [
                    {
                        "index": index,
                        "message": choice.message(),
                        "logprobs": {"content": choice.logprobs, "refusal": None} if choice.logprobs else None,
                        "finish_reason": choice.finish,
                    }
                    for index, choice in enumerate(choices)
                ],
                "usage": usage_object(usage),
            }
        )


class CompletionWriter:
    """The shape of /v1/completions."""

    def __init__(self, request_id: str, model: str, created: int, include_usage: bool) -> None:
        self._about = {
            "id": f"cmpl-{request_id}",
            "object": "text_completion",
            "created": created,
            "model": model,
        }
        self._include_usage = include_usage

    def begin(self) -> bytes:
        """Nothing: text is the first thing said."""
        return b""

    def chunk(self, index: int, delta: Delta) -> bytes:
        """One piece."""
        if not (delta.text or delta.finish or delta.logprobs):
            return b""
        choice = {
            "index": index,
            "text": delta.text,
            "logprobs": delta.logprobs,
            "finish_reason": delta.finish,
        }
        return b"data: " + orjson.dumps(self._about | {"choices": [choice]}) + b"\n\n"

    def end(self, usage: Usage) -> bytes:
        """Usage where it was asked for, then [DONE]."""
        if not self._include_usage:
            return DONE
        return b"data: " + orjson.dumps(self._about | {"choices": [], "usage": usage_object(usage)}) + b"\n\n" + DONE

    def fail(self, error: bytes) -> bytes:
        """An error event; no [DONE] follows."""
        return b"data: " + error + b"\n\n"

    def whole(self, choices: list[Collected], usage: Usage) -> bytes:
        """A text_completion object."""
        shaped = [
            {
                "index": index,
                "text": "".join(choice.text),
                "logprobs": choice.legacy_logprobs or ({"content": choice.logprobs} if choice.logprobs else None),
                "finish_reason": choice.finish,
            }
            for index, choice in enumerate(choices)
        ]
        return orjson.dumps(self._about | {"choices": shaped, "usage": usage_object(usage)})


class EmbeddingWriter:
    """The shape of /v1/embeddings: floats, or little-endian float32 in base64. Never streamed."""

    def __init__(self, model: str, as_base64: bool) -> None:
        self._model = model
        self._as_base64 = as_base64

    def whole(self, choices: list[Collected], usage: Usage) -> bytes:
        """A list of embeddings in the order of the inputs."""
        data = [
            {"object": "embedding", "index": index, "embedding": _pack(row) if self._as_base64 else row}
            for index, row in enumerate(choices[0].embeddings)
        ]
        counts = {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.prompt_tokens}
        return orjson.dumps({"object": "list", "data": data, "model": self._model, "usage": counts})


def _pack(row: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(row)}f", *row)).decode()
