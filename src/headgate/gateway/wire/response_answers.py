"""Answers in the shape of /v1/responses: one text item, whole or as typed events."""

from __future__ import annotations

from typing import Any

import orjson

from headgate.core.chat import Delta
from headgate.core.usage import Usage
from headgate.gateway.wire.answers import Collected


class ResponseWriter:
    """The shape of /v1/responses. Events are numbered; one output item with one text part."""

    def __init__(self, request_id: str, model: str, created: int, echo: dict[str, Any]) -> None:
        """`echo` are the request's own settings, which the response object repeats."""
        self._id = f"resp_{request_id}"
        self._item = f"msg_{request_id}"
        self._base: dict[str, Any] = {
            "id": self._id,
            "object": "response",
            "created_at": created,
            "error": None,
            "incomplete_details": None,
            "metadata": {},
            "model": model,
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "store": False,
            "tool_choice": "none",
            "tools": [],
            "truncation": "disabled",
            **echo,
        }
        self._sequence = -1
        self._collected = Collected()

    def begin(self) -> bytes:
        """The events that open the response, its item and its text part."""
        opened: dict[str, Any] = self._base | {"status": "in_progress", "output": []}
        return b"".join(
            (
                self._event("response.created", response=opened),
                self._event("response.in_progress", response=opened),
                self._event("response.output_item.added", output_index=0, item=self._message("in_progress", None)),
                self._event("response.content_part.added", **self._where, part=_part("")),
            )
        )

    def chunk(self, index: int, delta: Delta) -> bytes:
        """One piece of text."""
        self._collected.add(delta)
        if not delta.text:
            return b""
        return self._event("response.output_text.delta", **self._where, delta=delta.text, logprobs=[])

    def end(self, usage: Usage) -> bytes:
        """The events that close the text, its item and the response."""
        text = "".join(self._collected.text)
        whole = self._response([self._collected], usage)
        cut = whole["status"] == "incomplete"
        return b"".join(
            (
                self._event("response.output_text.done", **self._where, text=text, logprobs=[]),
                self._event("response.content_part.done", **self._where, part=_part(text)),
                self._event("response.output_item.done", output_index=0, item=whole["output"][0]),
                self._event("response.incomplete" if cut else "response.completed", response=whole),
            )
        )

    def fail(self, error: bytes) -> bytes:
        """An error event."""
        told = orjson.loads(error)["error"]
        return self._event("error", code=told["code"], message=told["message"], param=told["param"])

    def whole(self, choices: list[Collected], usage: Usage) -> bytes:
        """A response object."""
        return orjson.dumps(self._response(choices, usage))

    @property
    def _where(self) -> dict[str, Any]:
        return {"item_id": self._item, "output_index": 0, "content_index": 0}

    def _event(self, kind: str, **fields: Any) -> bytes:
        self._sequence += 1
        data = orjson.dumps({"type": kind, "sequence_number": self._sequence, **fields})
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)

    def _message(self, status: str, text: str | None) -> dict[str, Any]:
        content = [] if text is None else [_part(text)]
        return {
            "id": self._item,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": content,
        }

    def _response(self, choices: list[Collected], usage: Usage) -> dict[str, Any]:
        cut = choices[0].finish == "length"
        status = "incomplete" if cut else "completed"
        return self._base | {
            "status": status,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": [self._message(status, "".join(choices[0].text))],
            "usage": {
                "input_tokens": usage.prompt_tokens,
                "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
                "output_tokens": usage.output_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": usage.prompt_tokens + usage.output_tokens,
            },
        }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
