"""The fake engine: no model, a set speed, settable failures. For tests, demos and benchmarks."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing

import orjson
from pydantic import ValidationError

from headgate.core.chat import Call, Delta, Kind
from headgate.core.errors import BadRequest, ModelRefused, UpstreamFailed
from headgate.core.model import Version
from headgate.engines.engine import Command, Knob, Launch, Memory, ModelOptions, Upstream
from headgate.engines.http import HttpClient
from headgate.engines.openai_dialect import PATHS, AnswerReader, build_body, select, wants_logprobs
from headgate.engines.replica_call import call_json, stream_answer, stream_embeddings
from headgate.engines.settings import FakeModelSettings, settings_refused

_TEXT = frozenset(["seed", "stop", "max_tokens", "temperature", "logprobs", "response_format"])
_HONOURED: dict[Kind, frozenset[str]] = {
    "chat": _TEXT | frozenset(["messages", "max_completion_tokens", "top_logprobs", "tools", "tool_choice"]),
    "completion": _TEXT | {"prompt"},
    "embedding": frozenset({"input", "encoding_format", "dimensions"}),
}


class Fake:
    """The engine `fake`."""

    name = "fake"
    leaves_walls = False

    def __init__(self, client: HttpClient) -> None:
        self._client = client

    def check(self, version: Version, options: ModelOptions) -> None:
        """Return when the version is a fake one and its settings are valid; else raise ModelRefused."""
        if version.format != "fake":
            raise ModelRefused("The fake engine runs no real model. Set engine: auto.", param="engine")
        self._model_settings(options)

    def supports(self, version: Version) -> frozenset[Kind]:
        """Every kind."""
        return frozenset({"chat", "completion", "embedding"})

    def honours(self, kind: Kind) -> frozenset[str]:
        """The fields of an OpenAI body that have an effect. Temperature counts: an answer is as certain as at zero."""
        return _HONOURED[kind]

    def estimate_memory(self, version: Version, options: ModelOptions) -> Memory:
        """What the setting `memory_bytes` says."""
        return Memory(weights=0, kv_cache=0, compute=0, overhead=self._model_settings(options).memory_bytes)

    def knobs(self, version: Version) -> tuple[Knob, ...]:
        """Slots: the rest is pretended."""
        return (Knob(name="slots", values=(1, 2, 4, 8, 16, 32), default=1),)

    def command(self, launch: Launch) -> Command:
        """The child process that is this replica."""
        order = {
            "host": launch.host,
            "port": launch.port,
            "secret": launch.secret.reveal(),
            "context": launch.options.context,
            "slots": launch.options.slots,
            "settings": self._model_settings(launch.options).model_dump(),
        }
        argv = (sys.executable, "-P", "-m", "headgate.engines.fake_process")
        return Command(argv=argv, stdin=orjson.dumps(order))

    def upstream(self, launch: Launch) -> Upstream:
        """The replica's socket and secret."""
        return Upstream(address=launch.address, secret=launch.secret)

    async def check_ready(self, upstream: Upstream, version: Version) -> None:
        """Return once the replica has produced a token; raise UpstreamFailed while it cannot."""
        try:
            body = {"prompt": "ready", "max_tokens": 1}
            answer = await call_json(self._client, upstream, PATHS["completion"], body, first_byte_s=10.0)
        except BadRequest as error:
            raise UpstreamFailed("The replica cannot answer its first request.", code="replica_failed") from error
        if not answer.get("choices"):
            raise UpstreamFailed("The replica produced no token.", code="replica_failed")

    def stream(self, upstream: Upstream, call: Call, seed_offset: int = 0) -> AsyncGenerator[Delta, None]:
        """One attempt; see Engine.stream."""
        return self._stream(upstream, call, seed_offset, None)

    async def resume(
        self, upstream: Upstream, call: Call, text: str, token_ids: tuple[int, ...]
    ) -> AsyncGenerator[Delta, None]:
        """Continue any answer of text to the byte; see Engine.resume."""
        if call.kind == "embedding" or call.body.get("tools"):
            raise UpstreamFailed("Only an answer of text can be continued.")
        try:
            async with aclosing(self._stream(upstream, call, 0, text)) as deltas:
                async for delta in deltas:
                    yield delta
        except BadRequest as error:
            raise UpstreamFailed("The text that was delivered is not how this answer begins.") from error

    def _stream(
        self, upstream: Upstream, call: Call, seed_offset: int, after: str | None
    ) -> AsyncGenerator[Delta, None]:
        body = build_body(call, "", seed_offset)
        if seed_offset:
            body["seed"] = int(call.body.get("seed") or 0) + seed_offset
        body = select(body, _HONOURED[call.kind] | {"stream", "stream_options"})
        if call.kind == "embedding":
            return stream_embeddings(self._client, upstream, PATHS["embedding"], body)
        asked, top = wants_logprobs(call)
        resumable = call.greedy and call.plain
        body["return_progress"] = True
        if resumable and not asked:
            body["n_probs"] = 1
        if after is not None:
            body["continue_after"] = after
        reader = AnswerReader(call.kind, logprobs=asked, top=top, ids=resumable, offset=len(after or ""))
        return stream_answer(self._client, upstream, PATHS[call.kind], body, reader)

    def _model_settings(self, options: ModelOptions) -> FakeModelSettings:
        try:
            return FakeModelSettings.model_validate(dict(options.settings))
        except ValidationError as error:
            raise settings_refused(error) from error
