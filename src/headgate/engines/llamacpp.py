"""llama.cpp: GGUF versions on CPU, with layers on a GPU where the build can, several requests at once in slots.

Owns how a replica is started (packaged server or the user's own llama-server) and its dialect beyond OpenAI's wire:
token ids in streams and the exact continuation of a greedy answer. Knows nothing of where replicas run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from headgate.core.chat import Call, Delta, FinishReason, Kind
from headgate.core.errors import BadRequest, ModelRefused, UpstreamFailed
from headgate.core.model import Version
from headgate.core.usage import Usage
from headgate.engines.engine import Command, Knob, Launch, Memory, ModelOptions, Upstream
from headgate.engines.http import HttpClient
from headgate.engines.json_values import as_list
from headgate.engines.llamacpp_binary import build_binary_command
from headgate.engines.llamacpp_knobs import llamacpp_knobs
from headgate.engines.llamacpp_memory import estimate_llamacpp_memory, maps_weights
from headgate.engines.llamacpp_tools import demanded_tools, read_tool_call, tool_messages, tool_schema
from headgate.engines.openai_dialect import (
    PATHS,
    AnswerReader,
    build_body,
    read_error,
    select,
    wants_logprobs,
)
from headgate.engines.replica_call import (
    ERROR_BYTES_MAX,
    call_json,
    embed,
    refuse,
    request_headers,
    stream_answer,
    stream_embeddings,
)
from headgate.engines.settings import LlamaCppModelSettings, LlamaCppSettings, settings_refused
from headgate.engines.sse import EventSplitter

READY_S = 60.0  # seconds a replica may take over its first token before it counts as hanging
_SAMPLING = frozenset(
    [
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "typical_p",
        "repeat_penalty",
        "seed",
        "stop",
        "max_tokens",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
    ]
)
_HONOURED: dict[Kind, frozenset[str]] = {
    "chat": _SAMPLING
    | frozenset(
        [
            "messages",
            "max_completion_tokens",
            "top_logprobs",
            "response_format",
            "tools",
            "tool_choice",
            "parallel_tool_calls",
            "chat_template_kwargs",
        ]
    ),
    "completion": _SAMPLING | {"prompt"},
    "embedding": frozenset({"input", "encoding_format"}),
}
_STOPS: dict[str, FinishReason] = {"limit": "length", "eos": "stop", "word": "stop"}


class LlamaCpp:
    """The engine `llamacpp`."""

    name = "llamacpp"
    leaves_walls = False

    def __init__(self, settings: LlamaCppSettings, client: HttpClient) -> None:
        self._settings = settings
        self._client = client

    def check(self, version: Version, options: ModelOptions) -> None:
        """Return when llama.cpp can run the version so; else raise ModelRefused with field and cure."""
        if version.format != "gguf":
            raise ModelRefused(
                f"llamacpp runs GGUF files and this version is {version.format}. Convert it to GGUF.",
                param="engine",
            )
        settings = _model_settings(options)
        if version.context is not None and options.context > version.context:
            raise ModelRefused(
                f"context is {options.context} tokens, but the model was made for {version.context}. Lower context.",
                param="context",
            )
        if settings.pooling is not None and version.task != "embed":
            raise ModelRefused("settings.pooling is for embedding models. Remove it.", param="settings.pooling")
        for adapter in options.adapters:
            if not _is_gguf(Path(adapter)):
                raise ModelRefused(f"adapters: {adapter} is no GGUF file. Give the path of one.", param="adapters")
        binary = self._settings.binary
        if binary is not None and not os.access(binary, os.X_OK):
            raise ModelRefused(
                f"engines.llamacpp.binary: {binary} is not a program that can be run.",
                param="engines.llamacpp.binary",
            )

    def supports(self, version: Version) -> frozenset[Kind]:
        """Embeddings for an embedding model, else chat and completions."""
        return frozenset({"embedding"}) if version.task == "embed" else frozenset({"chat", "completion"})

    def honours(self, kind: Kind) -> frozenset[str]:
        """The fields of an OpenAI body that have an effect; others are not sent on."""
        return _HONOURED[kind]

    def estimate_memory(self, version: Version, options: ModelOptions) -> Memory:
        """Peak bytes of one replica here and on a GPU, from the header. Raises ModelRefused when that is not known."""
        settings = _model_settings(options)
        batch = self._batch(version, options, settings)
        memory = estimate_llamacpp_memory(version, options, batch, kv_type=settings.kv_type)
        adapters = sum(Path(adapter).stat().st_size for adapter in options.adapters if Path(adapter).is_file())
        device = memory.device + adapters if options.gpu_layers else 0  # where its layers are, an adapter's part is
        return replace(memory, weights=memory.weights + adapters, device=device)

    def knobs(self, version: Version) -> tuple[Knob, ...]:
        """Slots, batch, threads, the KV cache's type and the context."""
        return llamacpp_knobs(version, self._settings.batch)

    def command(self, launch: Launch) -> Command:
        """The child process that is this replica."""
        options = launch.options
        settings = _model_settings(options)
        batch = self._batch(launch.version, options, settings)
        if self._settings.binary is not None:
            return build_binary_command(self._settings, launch, settings, batch)
        order = {
            "model": launch.version.path,
            "host": launch.host,
            "port": launch.port,
            "secret": launch.secret.reveal(),
            "context": options.context,
            "slots": options.slots,
            "threads": options.threads,
            "batch": batch,
            "embedding": launch.version.task == "embed",
            "pooling": settings.pooling,
            "gpu_layers": options.gpu_layers,
            "adapters": list(options.adapters),
            "prompt_cache": settings.prompt_cache,
            "kv_type": settings.kv_type,
            "mapped": maps_weights(launch.version),
        }
        argv = (sys.executable, "-P", "-m", "headgate.engines.llamacpp_process")
        return Command(argv=argv, stdin=orjson.dumps(order))

    def upstream(self, launch: Launch) -> Upstream:
        """The replica's socket and secret."""
        return Upstream(address=launch.address, secret=launch.secret)

    async def check_ready(self, upstream: Upstream, version: Version) -> None:
        """Return once the replica has produced a token or a vector; raise UpstreamFailed while it cannot."""
        try:
            if version.task == "embed":
                delta = await embed(self._client, upstream, PATHS["embedding"], {"input": "ready"})
                produced = bool(delta.embeddings)
            else:
                body = {"prompt": "ready", "max_tokens": 1, "temperature": 0, "cache_prompt": False}
                answer = await call_json(self._client, upstream, PATHS["completion"], body, first_byte_s=READY_S)
                produced = bool(answer.get("choices")) and answer["usage"]["completion_tokens"] >= 1
        except BadRequest as error:
            raise UpstreamFailed("The replica cannot answer its first request.", code="replica_failed") from error
        if not produced:
            raise UpstreamFailed("The replica produced no token.", code="replica_failed")

    def stream(self, upstream: Upstream, call: Call, seed_offset: int = 0) -> AsyncGenerator[Delta, None]:
        """One attempt; see Engine.stream. Token ids come with greedy, plain answers: those can be continued."""
        body = build_body(call, "", seed_offset)
        asked, top = wants_logprobs(call)
        body = select(body, _HONOURED[call.kind] | {"stream", "stream_options"})
        if call.kind == "embedding":
            return stream_embeddings(self._client, upstream, PATHS["embedding"], body)
        if call.kind == "chat":
            try:
                tools = demanded_tools(body)
            except BadRequest as error:
                return refuse(error)
            if tools is not None:
                return self._call_tool(upstream, body, tools)
        resumable = call.greedy and call.plain
        body["return_progress"] = True
        if asked:
            body["logprobs"] = True if call.kind == "chat" else max(1, top)
            if call.kind == "chat":
                body["top_logprobs"] = max(1, top)
        elif resumable:
            # Why: the cheapest way to learn the ids of the produced tokens in a chat stream.
            body["n_probs"], body["post_sampling_probs"] = 1, True
        reader = AnswerReader(call.kind, logprobs=asked, top=top, ids=resumable)
        return stream_answer(self._client, upstream, PATHS[call.kind], body, reader, self._bridge)

    async def resume(
        self, upstream: Upstream, call: Call, text: str, token_ids: tuple[int, ...]
    ) -> AsyncGenerator[Delta, None]:
        """Continue a greedy, plain answer; see Engine.resume. The replica renders and tokenises the prompt again.

        The usage at the end has the prompt as it was asked and only the new tokens of the answer.
        """
        if not (call.greedy and call.plain) or call.kind == "embedding":
            raise UpstreamFailed("Only a greedy answer of free text can be continued.")
        prompt = await self._prompt_ids(upstream, call)
        produced = await self._matching_ids(upstream, text, token_ids)
        body = select(call.body, _SAMPLING - {"logprobs", "max_tokens"})
        asked, top = wants_logprobs(call)
        limit = -1
        if call.max_tokens is not None:
            limit = call.max_tokens - len(produced)
            if limit <= 0:
                usage = Usage(prompt_tokens=len(prompt))
                yield Delta(finish="length", usage=usage)
                return
        body |= {
            "prompt": [*prompt, *produced],
            "n_predict": limit,
            "stream": True,
            "return_tokens": True,
            "return_progress": True,
            "n_probs": max(1, top) if asked else 0,
        }
        reader = AnswerReader(call.kind, logprobs=asked, top=top, offset=len(text))
        async with aclosing(self._continue(upstream, body, reader, len(prompt))) as deltas:
            async for delta in deltas:
                yield delta

    async def _call_tool(
        self, upstream: Upstream, body: dict[str, Any], tools: list[dict[str, Any]]
    ) -> AsyncGenerator[Delta, None]:
        """The call of one of `tools`, in one piece at the end."""
        wanted = select(body, body.keys() - {"tools", "tool_choice", "parallel_tool_calls", "logprobs", "stop"})
        wanted["messages"] = tool_messages(body["messages"], tools)
        form = {"name": "call", "schema": tool_schema(tools), "strict": True}
        wanted |= {"response_format": {"type": "json_schema", "json_schema": form}, "return_progress": True}
        reader = AnswerReader("chat")
        path = PATHS["chat"]
        text, usage = "", None
        async with aclosing(stream_answer(self._client, upstream, path, wanted, reader)) as deltas:
            async for delta in deltas:
                text += delta.text
                usage = delta.usage or usage
                if delta.progress is not None:
                    yield delta
        yield Delta(tool_calls=read_tool_call(text))
        yield Delta(finish="tool_calls", usage=usage)

    async def _continue(
        self, upstream: Upstream, body: dict[str, Any], reader: AnswerReader, prompt_tokens: int
    ) -> AsyncGenerator[Delta, None]:
        wire = orjson.dumps(body)
        finished = False
        async with self._client.request(
            "POST", upstream.address, "/completion", request_headers(upstream), wire
        ) as response:
            if response.status != 200:
                raise read_error(response.status, await response.read(ERROR_BYTES_MAX))
            splitter = EventSplitter()
            while chunk := await response.next_chunk():
                for payload in splitter.feed(chunk):
                    piece = orjson.loads(payload)
                    if "error" in piece:
                        raise read_error(piece["error"].get("code", 500), piece)
                    if "prompt_progress" in piece:
                        progress = piece["prompt_progress"]
                        yield Delta(progress=(progress["processed"], progress["total"]))
                        continue
                    delta = Delta(text=piece["content"], token_ids=tuple(piece.get("tokens") or ()))
                    if piece.get("completion_probabilities"):
                        reader.read_logprobs(delta, {"content": piece["completion_probabilities"]})
                    if piece["stop"]:
                        finished = True
                        delta.finish = _STOPS.get(piece.get("stop_type", ""), "stop")
                        delta.usage = Usage(
                            prompt_tokens=prompt_tokens,
                            cached_tokens=0,
                            output_tokens=piece["tokens_predicted"],
                        )
                    yield delta
        if not finished:
            raise UpstreamFailed("The replica's answer ended before it was complete.", code="replica_broke")

    async def _prompt_ids(self, upstream: Upstream, call: Call) -> list[int]:
        prompt = call.body.get("prompt")
        if call.kind == "chat":
            asked = select(call.body, ("messages", "chat_template_kwargs"))
            prompt = (await call_json(self._client, upstream, "/apply-template", asked))["prompt"]
        if len(as_list(prompt)) == 1:
            prompt = as_list(prompt)[0]
        if as_list(prompt):
            return as_list(prompt)
        asked = {"content": prompt, "add_special": True, "parse_special": True}
        return (await call_json(self._client, upstream, "/tokenize", asked))["tokens"]

    async def _matching_ids(self, upstream: Upstream, text: str, token_ids: tuple[int, ...]) -> tuple[int, ...]:
        """The ids whose text is exactly `text`: tokens whose text was still kept back are produced again."""
        for count in range(len(token_ids), max(-1, len(token_ids) - 33), -1):
            known = token_ids[:count]
            content = (await call_json(self._client, upstream, "/detokenize", {"tokens": list(known)}))["content"]
            if content == text:
                return known
            if not content.startswith(text):
                break
        raise UpstreamFailed("The token log does not give the text that was delivered, so it cannot be continued.")

    async def _bridge(self, upstream: Upstream, text: str, known: tuple[int, ...]) -> tuple[int, ...]:
        """The ids of `text`, the last of which is known; none when the tokenizer would have split it otherwise."""
        asked = {"content": text, "add_special": False, "with_pieces": True}
        answer = await call_json(self._client, upstream, "/tokenize", asked)
        left = text.encode()
        tail: list[int] = []
        for token in reversed(answer["tokens"]):  # from the end: a tokenizer may put a space before the first
            piece = token["piece"]
            piece = piece.encode() if isinstance(piece, str) else bytes(piece)
            if not left or not left.endswith(piece):
                break
            left = left[: len(left) - len(piece)]
            tail.insert(0, token["id"])
        return tuple(tail) if not left and known and tail[-1] == known[-1] else ()

    def _batch(self, version: Version, options: ModelOptions, settings: LlamaCppModelSettings) -> int:
        batch = settings.batch or self._settings.batch
        # Why: an embedding model reads a whole text in one step; llama.cpp refuses texts longer than its batch.
        return max(batch, options.context) if version.task == "embed" else batch


def _is_gguf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError:
        return False


def _model_settings(options: ModelOptions) -> LlamaCppModelSettings:
    try:
        return LlamaCppModelSettings.model_validate(dict(options.settings))
    except ValidationError as error:
        raise settings_refused(error) from error
