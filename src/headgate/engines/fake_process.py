"""The child process of a fake replica: `python -m headgate.engines.fake_process`, its launch as JSON on stdin.

Answers at a set speed and fails as told. Its text depends on seed and prompt alone, so an answer can be continued to
the byte. It is no model and says so: its words are names of places at a river.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Awaitable
from dataclasses import dataclass
from types import FrameType, SimpleNamespace
from typing import Any

import orjson

from headgate.core.chat import FinishReason
from headgate.core.clock import Clock, SystemClock
from headgate.engines.fake_answer import (
    count_tokens,
    cut_text,
    draw_words,
    embed_text,
    make_instance,
    nonsense,
    prompt_key,
)
from headgate.engines.json_values import as_list, as_object
from headgate.engines.replica_server import ReplicaServer, Reply, guard_process, run_replica
from headgate.engines.replica_wire import (
    Answer,
    EventRenderer,
    Refused,
    Wish,
    cut_at_stop,
    read_wish,
    render_body,
    render_embeddings,
    render_error,
    skip_text,
)

EXIT_REFUSED = 3
EXIT_CRASH = 70
_PROGRESS_STEP = 64
_MAGIC = re.compile(rb"\[\[(crash|hang|error|slow)(?::(\d+))?\]\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trouble:
    """What goes wrong in one answer: after so many of its tokens the process exits or sends nothing any more."""

    after: int
    crash: bool


class FakeApp:
    """The handler of a fake replica. `settings` has the fields of FakeModelSettings."""

    def __init__(self, settings: Any, context: int, slots: int, clock: Clock) -> None:
        self.server: ReplicaServer | None = None
        self._settings = settings
        self._context = context
        self._slots = slots
        self._clock = clock
        self._produced = 0
        self._free = slots
        self._waiting: list[Any] = []

    def handle(self, path: str, body: bytes, reply: Reply) -> Awaitable[None] | None:
        """Answer one request: at once, or by the coroutine returned."""
        if path == "/health":
            return reply.json(200, b'{"status":"ok"}')
        if path == "/slots":
            return reply.json(200, self._slots_body())
        try:
            asked = as_object(orjson.loads(body))
            if not asked:
                raise ValueError
            if self._settings.error_status is not None:
                return reply.json(self._settings.error_status, render_error("server_error", "told to fail", 500))
            if path == "/v1/embeddings":
                return reply.json(200, self._embeddings(asked))
            if path in ("/v1/chat/completions", "/v1/completions"):
                return self._answer(path == "/v1/chat/completions", asked, reply)
        except Refused as refused:
            return reply.json(400, refused.body)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return reply.json(400, render_error("invalid_request_error", "the request makes no sense"))
        return reply.json(404, render_error("not_found_error", "no such path", 404))

    # -- what is answered ----------------------------------------------------------------------------------------

    def _answer(self, chat: bool, asked: dict[str, Any], reply: Reply) -> Awaitable[None] | None:
        prompt = asked["messages"] if chat else asked["prompt"]
        if not prompt or (chat and not isinstance(prompt, list)):
            raise Refused(render_error("invalid_request_error", "prompt is missing"))
        key = prompt_key(prompt)
        wish = read_wish(chat, asked)
        answer = self._plan(key, asked)
        pace, trouble, slow = self._settings.tokens_per_s, self._trouble(len(answer.tokens)), False
        if self._settings.magic and b"[[" in key and (match := _MAGIC.search(key)):
            word, number = match[1], int(match[2] or len(answer.tokens) // 2)
            if word == b"error":
                return reply.json(int(match[2] or 500), render_error("server_error", "told to fail", 500))
            slow = word == b"slow"
            if not slow:
                trouble = _Trouble(after=min(number, len(answer.tokens)), crash=word == b"crash")
        if slow:
            pace = 20.0
        created = int(self._clock.now())
        if not pace and trouble is None and not self._settings.prompt_tokens_per_s:
            self._produced += len(answer.tokens)
            if not wish.stream:
                return reply.json(200, render_body(answer, wish, created))
            renderer = EventRenderer(wish, created)
            total = answer.prompt_tokens
            return reply.all_events(
                renderer.start()
                + renderer.progress(total, total)
                + renderer.tokens(answer.tokens)
                + renderer.end(answer)
            )
        return self._tell(answer, wish, reply, pace, trouble, created)

    def _plan(self, key: bytes, asked: dict[str, Any]) -> Answer:
        prompt_tokens = len(key) // 4 + 1
        if prompt_tokens >= self._context:
            message = f"request ({prompt_tokens} tokens) exceeds the available context size ({self._context} tokens)"
            more = {"n_prompt_tokens": prompt_tokens, "n_ctx": self._context}
            raise Refused(render_error("exceed_context_size_error", message, **more))
        seed = self._settings.seed + int(asked.get("seed") or 0)
        finish: FinishReason = "stop"
        tool = _chosen_tool(asked)
        if tool is not None:
            return self._call_tool(tool, prompt_tokens)
        form = as_object(asked.get("response_format"))
        if form.get("type") in ("json_schema", "json_object"):
            schema = as_object(form.get("json_schema")).get("schema") or {"type": "object"}
            text = nonsense() if self._settings.fail_open else orjson.dumps(make_instance(schema)).decode()
            tokens = cut_text(text)
        else:
            tokens = draw_words(seed, key, self._settings.answer_tokens)
        limit = asked.get("max_completion_tokens") or asked.get("max_tokens") or asked.get("n_predict")
        room = self._context - prompt_tokens
        limit = room if limit is None or limit < 0 else min(int(limit), room)
        if len(tokens) > limit:
            tokens, finish = tokens[:limit], "length"
        stops = asked.get("stop")
        if stops:
            tokens, stopped = cut_at_stop(tokens, [stops] if isinstance(stops, str) else as_list(stops))
            finish = "stop" if stopped else finish
        after = asked.get("continue_after")
        if after is not None:
            tokens = skip_text(tokens, after)
        return Answer(tokens=tokens, finish=finish, prompt_tokens=prompt_tokens)

    def _call_tool(self, tool: dict[str, Any], prompt_tokens: int) -> Answer:
        arguments = orjson.dumps(make_instance(tool.get("parameters") or {"type": "object"})).decode()
        call = {
            "id": f"call_{prompt_tokens:08x}",
            "type": "function",
            "function": {"name": tool["name"], "arguments": arguments},
        }
        return Answer(tokens=[], finish="tool_calls", prompt_tokens=prompt_tokens, tool_calls=[call])

    def _embeddings(self, asked: dict[str, Any]) -> bytes:
        texts = asked["input"]
        texts = [texts] if isinstance(texts, str) else texts
        if not texts or not all(isinstance(text, str) for text in texts):
            raise Refused(render_error("invalid_request_error", "input must be a text or texts"))
        tokens = [count_tokens(text) for text in texts]
        if max(tokens) > self._context:
            more = {"n_prompt_tokens": max(tokens), "n_ctx": self._context}
            raise Refused(render_error("exceed_context_size_error", "input exceeds the context size", **more))
        size = int(asked.get("dimensions") or self._settings.dimensions)
        return render_embeddings([embed_text(text, size) for text in texts], sum(tokens), str(asked.get("model") or ""))

    # -- how it is told ------------------------------------------------------------------------------------------

    async def _tell(
        self, answer: Answer, wish: Wish, reply: Reply, pace: float, trouble: _Trouble | None, created: int
    ) -> None:
        await self._take_slot()
        try:
            renderer = EventRenderer(wish, created)
            if wish.stream:
                reply.start_events()
                reply.events(renderer.start() or renderer.progress(0, answer.prompt_tokens) or b": \n\n")
            await self._read_prompt(answer.prompt_tokens, renderer, reply if wish.stream else None)
            for index, token in enumerate(answer.tokens):
                if trouble is not None and trouble.after == index:
                    await self._break(trouble)
                if pace:
                    await self._clock.sleep(1.0 / pace)
                self._produced += 1
                if wish.stream:
                    reply.events(renderer.tokens((token,)))
            if trouble is not None and trouble.after >= len(answer.tokens):
                await self._break(trouble)
            if wish.stream:
                reply.events(renderer.end(answer))
                reply.end_events()
            else:
                reply.json(200, render_body(answer, wish, created))
        finally:
            self._give_slot()

    async def _read_prompt(self, total: int, renderer: EventRenderer, reply: Reply | None) -> None:
        speed = self._settings.prompt_tokens_per_s
        done = 0
        while done < total:
            step = min(_PROGRESS_STEP, total - done) if speed else total
            if speed:
                await self._clock.sleep(step / speed)
            done += step
            told = renderer.progress(done, total)
            if reply is not None and told:
                reply.events(told)

    async def _break(self, trouble: _Trouble) -> None:
        if trouble.crash:
            await self._clock.sleep(0)  # what was written is on its way
            os._exit(EXIT_CRASH)
        while True:
            await self._clock.sleep(3600)

    def _trouble(self, tokens: int) -> _Trouble | None:
        """What crash_after and hang_after mean for an answer of so many tokens."""
        for limit, crash in ((self._settings.crash_after, True), (self._settings.hang_after, False)):
            if limit is not None and self._produced + tokens >= limit:
                return _Trouble(after=max(0, limit - self._produced), crash=crash)
        return None

    async def _take_slot(self) -> None:
        import asyncio

        if self._free > 0:
            self._free -= 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            else:
                self._give_slot()
            raise

    def _give_slot(self) -> None:
        while self._waiting:
            waiter = self._waiting.pop(0)
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1

    def _slots_body(self) -> bytes:
        busy = self._slots - self._free
        return orjson.dumps([{"id": number, "is_processing": number < busy} for number in range(self._slots)])


async def serve(launch: dict[str, Any]) -> None:
    """Serve one launch until SIGTERM."""
    clock = SystemClock()
    settings = SimpleNamespace(**launch["settings"])
    if settings.load_s:
        await clock.sleep(settings.load_s)
    app = FakeApp(settings, launch["context"], launch["slots"], clock)
    await ReplicaServer(app.handle, launch["secret"]).serve(launch["host"], launch["port"])


def main() -> None:
    """Serve until SIGTERM or SIGINT; exit 3 when told to refuse loading."""
    guard_process()
    launch = orjson.loads(sys.stdin.buffer.read())
    if launch["settings"]["refuse_load"]:
        sys.stderr.write("fake: told to refuse loading\n")
        raise SystemExit(EXIT_REFUSED)
    signal.signal(signal.SIGTERM, _leave)  # until the server listens and takes it over
    run_replica(lambda: serve(launch))


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(0)


def _chosen_tool(asked: dict[str, Any]) -> dict[str, Any] | None:
    """The function that tool_choice demands to be called; None where text is an answer too."""
    tools = asked.get("tools")
    choice = asked.get("tool_choice")
    if not tools or choice in (None, "auto", "none"):
        return None
    if isinstance(choice, dict):
        wanted = as_object(choice)["function"]["name"]
        for tool in tools:
            if tool["function"]["name"] == wanted:
                return tool["function"]
        raise Refused(render_error("invalid_request_error", "tool_choice names no tool"))
    return tools[0]["function"]


if __name__ == "__main__":
    main()
