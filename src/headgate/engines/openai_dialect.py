"""The OpenAI wire as replicas speak it: request bodies out, chunks and errors in. Knows nothing of connections.

What an engine calls by other names (token ids, prompt progress) is read here too, since every replica of ours sends it
in the same chunks; nothing of it reaches a client.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from headgate.core.chat import Call, Delta, FinishReason, Kind
from headgate.core.errors import BadRequest, ContextOverflow, HeadgateError, UpstreamFailed
from headgate.core.usage import Usage
from headgate.engines.json_values import as_object

PATHS: Mapping[Kind, str] = {
    "chat": "/v1/chat/completions",
    "completion": "/v1/completions",
    "embedding": "/v1/embeddings",
}
_FINISHES: Mapping[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
# Why a list of phrases: an engine's own message may quote the prompt or the schema, so it is never passed on; these
# name the field and nothing of what was in it.
_OVERFLOWS = ("context size", "context length", "too large to process")
_REFUSALS = (
    ("embedding", None, "This model makes no embeddings; ask a pipeline whose model is an embedding model."),
    ("does not support completions", None, "This model only makes embeddings; send it to /v1/embeddings."),
    (
        "grammar",
        "response_format",
        "The schema cannot be turned into a grammar; use fewer or simpler keywords.",
    ),
    (
        "schema",
        "response_format",
        "The schema cannot be turned into a grammar; use fewer or simpler keywords.",
    ),
    ("tool", "tools", "The tools cannot be used with this model; check names, parameters and tool_choice."),
    ("jinja", "messages", "The model's chat template refused the messages; check their roles and order."),
    ("template", "messages", "The model's chat template refused the messages; check their roles and order."),
    ("roles", "messages", "The model's chat template refused the messages; check their roles and order."),
    ("content", "messages", "The content of a message has a part that this model does not take; send text."),
    ("prompt", "prompt", "The prompt is not valid for this model; send one text."),
    ("logit_bias", "logit_bias", "logit_bias is not valid for this model; map token ids to numbers."),
    ("stop", "stop", "stop is not valid; send a text or a list of texts."),
    ("input", "input", "The input is not valid for this model; send a text or a list of texts."),
)


def build_body(call: Call, model: str, seed_offset: int = 0) -> dict[str, Any]:
    """The body of one attempt at `call`: one choice, streamed unless it is an embedding.

    `seed_offset` is added to the seed, so that several choices of one request differ and repeat.
    """
    body = dict(call.body)
    if model:
        body["model"] = model
    if call.kind == "embedding":
        body.pop("encoding_format", None)
        return body
    body["stream"] = True
    body["stream_options"] = {"include_usage": True}
    if call.max_tokens is not None:
        body.pop("max_completion_tokens", None)
        body["max_tokens"] = call.max_tokens
    seed = body.get("seed")
    if seed is None:
        body.pop("seed", None)
    elif seed_offset:
        body["seed"] = seed + seed_offset
    if call.schema is not None and "response_format" not in body:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": call.schema},
        }
    return body


class AnswerReader:
    """Reads the chunks of one streamed answer into Deltas.

    `logprobs` says whether the asker wants them (in `top` alternatives a token); `ids` whether the token ids in them
    are wanted. `finished` is set once a chunk told why the answer ends: a stream that ends before is broken.
    `gaps` has the pieces whose ids are not whole, with the ids that are known: tokens whose text was kept back for a
    while (half a character, the begin of a stop text) are missing from the chunks.
    """

    __slots__ = (
        "_bytes",
        "_chat",
        "_head",
        "_ids",
        "_logprobs",
        "_offset",
        "_open",
        "_tail",
        "_top",
        "finished",
        "gaps",
    )

    def __init__(self, kind: Kind, *, logprobs: bool = False, top: int = 0, ids: bool = False, offset: int = 0) -> None:
        """`offset` is how many characters of the answer came before (a continued one)."""
        self.finished = False
        self.gaps: list[tuple[Delta, tuple[int, ...]]] = []
        self._chat = kind == "chat"
        self._logprobs = logprobs
        self._top = top
        self._ids = ids
        self._offset = offset
        self._open: tuple[int, ...] = ()
        self._bytes = b""
        self._head = b""
        self._tail = b""

    def read_all(self, payloads: list[bytes]) -> list[Delta]:
        """The pieces of chunks that arrived together; text that follows on text becomes one piece."""
        deltas: list[Delta] = []
        last: Delta | None = None
        head, tail = self._head, self._tail
        for payload in payloads:
            if head and payload.startswith(head) and payload.endswith(tail):
                inner = payload[len(head) : -len(tail)]
                if inner and b'"' not in inner and b"\\" not in inner:
                    if last is None:
                        last = Delta()
                        deltas.append(last)
                    last.text += inner.decode()
                    continue
            delta = self.read(payload)
            if delta is None:
                continue
            plain = bool(delta.text) and not (
                delta.finish or delta.usage or delta.logprobs or delta.tool_calls or delta.reasoning
            )
            if plain and self._ids:
                plain = bool(delta.token_ids)  # a gap is filled on its own
            elif plain and not self._logprobs:
                self._learn(payload, delta.text)
                head, tail = self._head, self._tail
            if plain and last is not None:
                last.text += delta.text
                last.token_ids += delta.token_ids
            else:
                deltas.append(delta)
                last = delta if plain else None
        return deltas

    def _learn(self, payload: bytes, text: str) -> None:
        """Remember what stands around the text of a chunk.

        Why: the chunks of one answer differ in their text only, and a string without quote or backslash needs no JSON
        parser; this reads a token in an eighth of the time.
        """
        mark = b'"content":"' if self._chat else b'"text":"'
        start = payload.find(mark) + len(mark)
        raw = text.encode()
        if start >= len(mark) and payload.startswith(raw + b'"', start) and payload.count(mark) == 1:
            self._head, self._tail = payload[:start], payload[start + len(raw) :]

    def read(self, payload: bytes) -> Delta | None:
        """The piece that one chunk holds; None when it holds nothing to tell.

        Raises UpstreamFailed when the chunk is no JSON or reports a failure, BadRequest when it reports a refusal.
        """
        try:
            chunk = orjson.loads(payload)
            choices = chunk.get("choices")
            if not choices:
                return self._read_rest(chunk)
            choice = choices[0]
            if self._chat:
                part = choice["delta"]
                text = part.get("content") or ""
                reasoning = part.get("reasoning_content") or ""
                tool_calls = part.get("tool_calls")
            else:
                text, reasoning, tool_calls = choice.get("text") or "", "", None
            finish = choice.get("finish_reason")
            usage = chunk.get("usage")
            logprobs = choice.get("logprobs")
            if not (text or finish or usage or logprobs or reasoning or tool_calls):
                progress = chunk.get("prompt_progress")
                return Delta(progress=(progress["processed"], progress["total"])) if progress else None
            delta = Delta(text=text, reasoning=reasoning, tool_calls=tool_calls)
            if logprobs:
                self.read_logprobs(delta, logprobs)
                if not (text or finish or usage or reasoning or tool_calls or delta.logprobs):
                    return None
            if finish:
                self.finished = True
                delta.finish = _FINISHES.get(finish, "stop")
            if usage:
                delta.usage = _read_usage(usage)
            return delta
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise UpstreamFailed("The replica sent a chunk that makes no sense.", code="replica_broke") from error

    def _read_rest(self, chunk: dict[str, Any]) -> Delta | None:
        if "error" in chunk:
            raise read_error(chunk["error"].get("code", 500), chunk)
        usage = chunk.get("usage")
        return Delta(usage=_read_usage(usage)) if usage else None

    def read_logprobs(self, delta: Delta, logprobs: dict[str, Any]) -> None:
        """Put the token ids and logprobs of one chunk into its piece, in OpenAI's shape."""
        content = logprobs.get("content")
        if content is None:
            if self._logprobs:
                delta.logprobs = logprobs  # already in the completions' shape
            return
        if self._ids:
            self._read_ids(delta, content)
        if self._logprobs:
            delta.logprobs = self._chat_shape(content) if self._chat else self._completion_shape(content)

    def _read_ids(self, delta: Delta, content: list[dict[str, Any]]) -> None:
        self._open += tuple([entry["id"] for entry in content if "id" in entry])
        if not delta.text:
            self._bytes += b"".join([_own_bytes(entry) for entry in content])
            return  # kept back: the ids come with their text
        known = self._bytes + b"".join([_own_bytes(entry) for entry in content])
        if known == delta.text.encode():
            delta.token_ids = self._open
        else:
            self.gaps.append((delta, self._open))
        self._open, self._bytes = (), b""

    def _chat_shape(self, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "content": [
                _token_shape(entry)
                | {"top_logprobs": [_token_shape(other) for other in entry.get("top_logprobs", ())[: self._top]]}
                for entry in content
            ],
            "refusal": None,
        }

    def _completion_shape(self, content: list[dict[str, Any]]) -> dict[str, Any]:
        offsets: list[int] = []
        for entry in content:
            offsets.append(self._offset)
            self._offset += len(entry["token"])
        tops = [
            {other["token"]: other["logprob"] for other in entry.get("top_logprobs", ())[: self._top]}
            for entry in content
        ]
        return {
            "tokens": [entry["token"] for entry in content],
            "token_logprobs": [entry["logprob"] for entry in content],
            "top_logprobs": tops if self._top else None,
            "text_offset": offsets,
        }


def read_embeddings(payload: bytes) -> Delta:
    """The one piece of an embedding answer: a row per input, in the order of the inputs. Raises UpstreamFailed."""
    try:
        answer = orjson.loads(payload)
        rows = sorted(answer["data"], key=lambda row: row["index"])
        return Delta(embeddings=[row["embedding"] for row in rows], usage=_read_usage(answer.get("usage") or {}))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UpstreamFailed("The replica sent embeddings that make no sense.", code="replica_broke") from error


def read_error(status: int, body: bytes | dict[str, Any]) -> HeadgateError:
    """The error that a replica's refusal amounts to, without its own words: they may quote the prompt."""
    kind, text = "", ""
    error: dict[str, Any] = {}
    try:
        answer = as_object(orjson.loads(body) if isinstance(body, bytes) else body)
        error = as_object(answer.get("error", answer))
        kind = str(error.get("type") or error.get("code") or "")
        text = str(error.get("message") or "").lower()
    except ValueError:
        pass
    code = str(error.get("code") or "")
    if "does not support logits" in text:
        return BadRequest("This model only makes embeddings; send it to /v1/embeddings.", param="model")
    if "exceed_context" in kind or code == "context_length_exceeded" or any(words in text for words in _OVERFLOWS):
        return _overflow(error)
    if status in (400, 404, 413, 422) or kind in ("invalid_request_error", "not_supported_error"):
        for phrase, param, message in _REFUSALS:
            if phrase in text:
                return BadRequest(message, param=error.get("param") or param)
        return BadRequest(
            "The engine refused this request. Check the fields that are new in it.", param=error.get("param")
        )
    if status in (401, 403):
        return UpstreamFailed("The replica did not take the secret it was sent.", code="replica_refused")
    return UpstreamFailed(f"The replica answered with status {status}. Send the request again.", code="replica_failed")


def wants_logprobs(call: Call) -> tuple[bool, int]:
    """Whether the asker wants logprobs, and of how many alternatives a token."""
    asked = call.body.get("logprobs")
    if call.kind == "chat":
        return bool(asked), int(call.body.get("top_logprobs") or 0)
    return asked is not None and asked is not False, int(asked or 0)


def select(body: Mapping[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    """Those of `fields` that are in `body`."""
    return {name: body[name] for name in fields if name in body}


def _overflow(error: Mapping[str, Any]) -> ContextOverflow:
    prompt, context = error.get("n_prompt_tokens"), error.get("n_ctx")
    if isinstance(prompt, int) and isinstance(context, int):
        return ContextOverflow(
            f"The prompt has {prompt} tokens and this model's context holds {context} (prompt and answer together). "
            "Shorten the messages.",
            param="messages",
        )
    return ContextOverflow(param="messages")


def _read_usage(usage: Mapping[str, Any]) -> Usage:
    details = as_object(usage.get("prompt_tokens_details"))
    return Usage(
        prompt_tokens=usage.get("prompt_tokens") or 0,
        cached_tokens=details.get("cached_tokens") or 0,
        output_tokens=usage.get("completion_tokens") or 0,
    )


def _token_shape(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"token": entry["token"], "logprob": entry["logprob"], "bytes": entry.get("bytes")}


def _own_bytes(entry: Mapping[str, Any]) -> bytes:
    """The bytes of the token itself. Its entry shows the text of the whole piece, which may hold tokens kept back."""
    for other in entry.get("top_probs") or entry.get("top_logprobs") or ():
        if other["id"] == entry["id"]:
            return bytes(other["bytes"])
    return bytes(entry.get("bytes") or ())
