"""The remote engine: a version that answers at some OpenAI-compatible address. What is asked of it leaves the walls."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from urllib.parse import quote, unquote

from pydantic import ValidationError

from headgate.core.chat import Call, Delta, Kind
from headgate.core.errors import BadRequest, ModelRefused, UpstreamFailed
from headgate.core.model import Version
from headgate.core.secret import Secret
from headgate.engines.engine import Command, Knob, Launch, Memory, ModelOptions, Upstream
from headgate.engines.http import HttpClient
from headgate.engines.openai_dialect import PATHS, AnswerReader, build_body, select, wants_logprobs
from headgate.engines.replica_call import refuse, stream_answer, stream_embeddings
from headgate.engines.settings import RemoteModelSettings, settings_refused

_SAMPLING = frozenset(
    {
        "temperature", "top_p", "seed", "stop", "max_tokens", "presence_penalty", "frequency_penalty", "logit_bias",
        "logprobs",
    }
)  # fmt: skip
_HONOURED: dict[Kind, frozenset[str]] = {
    "chat": _SAMPLING
    | {
        "messages", "max_completion_tokens", "top_logprobs", "response_format", "tools", "tool_choice",
        "parallel_tool_calls", "reasoning_effort",
    },
    "completion": _SAMPLING | {"prompt"},
    "embedding": frozenset({"input", "encoding_format", "dimensions"}),
}  # fmt: skip


class Remote:
    """The engine `remote`."""

    name = "remote"
    leaves_walls = True

    def __init__(self, client: HttpClient) -> None:
        self._client = client

    def check(self, version: Version, options: ModelOptions) -> None:
        """Return when the version is an endpoint whose key is there; else raise ModelRefused with field and cure."""
        if version.format != "endpoint":
            raise ModelRefused("The remote engine needs an endpoint: source. Set engine: auto.", param="engine")
        settings = self._model_settings(options)
        if settings.key_from is not None and not os.environ.get(settings.key_from):
            raise ModelRefused(
                f"settings.key_from: the environment variable {settings.key_from} is not set. "
                "Set it to the endpoint's key.",
                param="settings.key_from",
            )
        if options.adapters or options.gpu_layers:
            raise ModelRefused("A remote model takes no adapters and no gpu_layers. Remove them.", param="adapters")

    def supports(self, version: Version) -> frozenset[Kind]:
        """Embeddings for an embedding model, else chat and completions."""
        return frozenset({"embedding"}) if version.task == "embed" else frozenset({"chat", "completion"})

    def honours(self, kind: Kind) -> frozenset[str]:
        """The fields that are sent on; whether the endpoint keeps to them is its own affair."""
        return _HONOURED[kind]

    def estimate_memory(self, version: Version, options: ModelOptions) -> Memory:
        """Nothing: no process of ours."""
        return Memory(weights=0, kv_cache=0, compute=0, overhead=0)

    def knobs(self, version: Version) -> tuple[Knob, ...]:
        """None: how it runs is its owner's affair."""
        return ()

    def command(self, launch: Launch) -> Command | None:
        """None: there is nothing to start."""
        return None

    def upstream(self, launch: Launch) -> Upstream:
        """The endpoint and its key. The address ends with '#' and the name by which the endpoint knows the model.

        Why in the address: a routing table carries address and secret of a replica, and no more.
        """
        settings = self._model_settings(launch.options)
        key = os.environ.get(settings.key_from, "") if settings.key_from else ""
        base = launch.version.origin.removeprefix("endpoint:")
        return Upstream(address=f"{base}#{quote(settings.model, safe='')}", secret=Secret(key), model=settings.model)

    async def check_ready(self, upstream: Upstream, version: Version) -> None:
        """Return once the endpoint has answered one token; raise UpstreamFailed while it cannot."""
        if version.task == "embed":
            call = Call(kind="embedding", pipeline="", body={"input": "ready"})
        else:
            call = Call(
                kind="chat", pipeline="", body={"messages": [{"role": "user", "content": "ready"}]}, max_tokens=1
            )
        try:
            async for delta in self.stream(upstream, call):
                if delta.finish or delta.embeddings:
                    return
        except BadRequest as error:
            raise UpstreamFailed("The endpoint cannot answer a first request.", code="replica_failed") from error
        raise UpstreamFailed("The endpoint produced no token.", code="replica_failed")

    def stream(self, upstream: Upstream, call: Call, seed_offset: int = 0) -> AsyncGenerator[Delta, None]:
        """One attempt; see Engine.stream."""
        _, _, fragment = upstream.address.partition("#")
        body = build_body(call, upstream.model or unquote(fragment), seed_offset)
        body = select(body, _HONOURED[call.kind] | {"model", "stream", "stream_options"})
        path = PATHS[call.kind].removeprefix("/v1")  # an endpoint's address ends with its version already
        if call.kind == "embedding":
            return stream_embeddings(self._client, upstream, path, body)
        asked, top = wants_logprobs(call)
        reader = AnswerReader(call.kind, logprobs=asked, top=top)
        return stream_answer(self._client, upstream, path, body, reader)

    def resume(
        self, upstream: Upstream, call: Call, text: str, token_ids: tuple[int, ...]
    ) -> AsyncGenerator[Delta, None]:
        """Never: an endpoint of others cannot be made to continue exactly. Raises UpstreamFailed."""
        return refuse(UpstreamFailed("An answer of a remote endpoint cannot be continued. Send the request again."))

    def _model_settings(self, options: ModelOptions) -> RemoteModelSettings:
        try:
            return RemoteModelSettings.model_validate(dict(options.settings))
        except ValidationError as error:
            raise settings_refused(error) from error
