"""The child process of a classic replica: `python -m headgate.engines.classic_process`, its launch as JSON on stdin.

Answers a text with its label. The probabilities of all labels are the log probabilities of the one token that an
answer has, so a caller who wants certainty asks for logprobs, or for a JSON schema with a number in it.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable
from math import log
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson

from headgate.core.clock import Clock, SystemClock
from headgate.core.errors import ModelRefused
from headgate.engines.classic_model import ClassicModel, load
from headgate.engines.json_values import as_list, as_object
from headgate.engines.replica_server import ReplicaServer, Reply, guard_process, run_replica
from headgate.engines.replica_wire import (
    Answer,
    EventRenderer,
    Refused,
    Token,
    cut_at_stop,
    read_wish,
    render_body,
    render_error,
    skip_text,
)

EXIT_REFUSED = 3
_PROBABILITY_MIN = 1e-12
_ALTERNATIVES_MAX = 20  # Source: OpenAI API reference, top_logprobs


class ClassicApp:
    """The handler of a classic replica. `context` is in tokens, taken as four bytes each."""

    def __init__(self, model: ClassicModel, context: int, clock: Clock) -> None:
        self._model = model
        self._context = context
        self._clock = clock

    def handle(self, path: str, body: bytes, reply: Reply) -> Awaitable[None] | None:
        """Answer one request, at once."""
        if path == "/health":
            return reply.json(200, b'{"status":"ok"}')
        if path == "/slots":
            return reply.json(200, b'[{"id":0,"is_processing":false}]')  # one at a time: asked means idle
        chat = path == "/v1/chat/completions"
        if not chat and path != "/v1/completions":
            return reply.json(404, render_error("not_found_error", "no such path", 404))
        try:
            asked = orjson.loads(body)
            text = _last_text(asked["messages"]) if chat else _text_of(asked["prompt"])
            wish = read_wish(chat, asked)
            answer = self._answer(text, asked)
        except Refused as refused:
            return reply.json(400, refused.body)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError):
            return reply.json(400, render_error("invalid_request_error", "the request makes no sense"))
        created = int(self._clock.now())
        if not wish.stream:
            return reply.json(200, render_body(answer, wish, created))
        renderer = EventRenderer(wish, created)
        told = renderer.progress(answer.prompt_tokens, answer.prompt_tokens)
        return reply.all_events(renderer.start() + told + renderer.tokens(answer.tokens) + renderer.end(answer))

    def _answer(self, text: str, asked: dict[str, Any]) -> Answer:
        prompt_tokens = len(text.encode()) // 4 + 1
        if prompt_tokens >= self._context:
            more = {"n_prompt_tokens": prompt_tokens, "n_ctx": self._context}
            raise Refused(render_error("exceed_context_size_error", "text exceeds the context size", **more))
        labels, chances = self._model.predict(text)
        order: list[int] = chances.argsort()[::-1][:_ALTERNATIVES_MAX].tolist()
        others = tuple([(at, labels[at], log(max(float(chances[at]), _PROBABILITY_MIN))) for at in order])
        best = order[0]
        told = _shape_label(labels[best], float(chances[best]), as_object(asked.get("response_format")))
        tokens = [Token(id=best, text=told, logprob=others[0][2], others=others)]
        stops = asked.get("stop")
        if stops:
            tokens, _ = cut_at_stop(tokens, [stops] if isinstance(stops, str) else as_list(stops))
        if asked.get("continue_after") is not None:
            tokens = skip_text(tokens, asked["continue_after"])
        return Answer(tokens=tokens, finish="stop", prompt_tokens=prompt_tokens)


def _shape_label(label: str, confidence: float, form: dict[str, Any]) -> str:
    """The label as it was asked for: plain, or in the first JSON shape that fits the schema."""
    kind = form.get("type")
    if kind not in ("json_schema", "json_object"):
        return label
    schema = as_object(as_object(form.get("json_schema")).get("schema"))
    number = round(confidence, 6)
    own: dict[str, Any] = {}
    for name, value in as_object(schema.get("properties")).items():
        part = as_object(value)
        if part.get("type") == "string" or label in as_list(part.get("enum")):
            own[name] = label
        elif part.get("type") == "number":
            own[name] = number
    try:
        validator = jsonschema_rs.validator_for(schema)
    except ValueError as error:
        raise Refused(render_error("invalid_request_error", "the schema is not valid")) from error
    for shape in ({"label": label, "confidence": number}, own, {"label": label}, label):
        if validator.is_valid(shape):
            return orjson.dumps(shape).decode()
    message = "the schema cannot hold a label; a string and a number in an object will do"
    raise Refused(render_error("invalid_request_error", message))


def _last_text(messages: Any) -> str:
    """The text to classify: the last message of the user."""
    for message in reversed(messages):
        if message.get("role") == "user":
            return _text_of(message.get("content"))
    raise Refused(render_error("invalid_request_error", "messages hold no content of a user"))


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = as_list(content)
    if parts and all(as_object(part).get("type") == "text" for part in parts):
        return "\n".join([str(part["text"]) for part in parts])
    if len(parts) == 1 and isinstance(parts[0], str):
        return parts[0]
    raise Refused(render_error("invalid_request_error", "the content or prompt is no text"))


async def serve(model: ClassicModel, launch: dict[str, Any]) -> None:
    """Serve one launch until SIGTERM."""
    app = ClassicApp(model, launch["context"], SystemClock())
    await ReplicaServer(app.handle, launch["secret"]).serve(launch["host"], launch["port"])


def main() -> None:
    """Serve until SIGTERM or SIGINT; exit 3 with one line on stderr when the model cannot be served."""
    guard_process()
    launch = orjson.loads(sys.stdin.buffer.read())
    try:
        model = load(Path(launch["model"]))
    except (ModelRefused, OSError) as error:
        sys.stderr.write(f"classic: the model could not be loaded: {error}\n")
        raise SystemExit(EXIT_REFUSED) from error
    run_replica(lambda: serve(model, launch))


if __name__ == "__main__":
    main()
