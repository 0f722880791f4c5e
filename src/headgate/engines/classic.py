"""The classic engine: a linear text classifier behind the same API as a language model. No pickle, no scikit-learn."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import orjson

from headgate.core.chat import Call, Delta, Kind
from headgate.core.errors import BadRequest, ModelRefused, UpstreamFailed
from headgate.core.model import Version
from headgate.engines.engine import Command, Knob, Launch, Memory, ModelOptions, Upstream
from headgate.engines.http import HttpClient
from headgate.engines.openai_dialect import PATHS, AnswerReader, build_body, select, wants_logprobs
from headgate.engines.replica_call import call_json, refuse, stream_answer

_TEXT = frozenset({"seed", "stop", "max_tokens", "temperature", "logprobs", "response_format"})
_HONOURED: dict[Kind, frozenset[str]] = {
    "chat": _TEXT | {"messages", "max_completion_tokens", "top_logprobs"},
    "completion": _TEXT | {"prompt"},
    "embedding": frozenset(),
}
# Source: measured on the bundled ticket-category, numpy 2.4, Python 3.11: interpreter, numpy, server; and what the
# vocabulary takes as a dictionary for each byte of classic.json.
_OVERHEAD = 44 * 1024 * 1024
_VOCABULARY_FACTOR = 7


class Classic:
    """The engine `classic`."""

    name = "classic"
    leaves_walls = False

    def __init__(self, client: HttpClient) -> None:
        self._client = client

    def check(self, version: Version, options: ModelOptions) -> None:
        """Return when the version is a classic one; else raise ModelRefused with field and cure."""
        if version.format != "classic":
            raise ModelRefused("The classic engine runs headgate-classic folders. Set engine: auto.", param="engine")
        if options.settings:
            raise ModelRefused("A classic model has no settings. Remove them.", param="settings")
        if options.adapters or options.gpu_layers:
            raise ModelRefused("A classic model takes no adapters and no gpu_layers. Remove them.", param="adapters")

    def supports(self, version: Version) -> frozenset[Kind]:
        """Chat and completions; the answer is the label."""
        return frozenset({"chat", "completion"})

    def honours(self, kind: Kind) -> frozenset[str]:
        """The fields that have an effect. Seed and temperature count: the same text always gets the same label."""
        return _HONOURED[kind]

    def estimate_memory(self, version: Version, options: ModelOptions) -> Memory:
        """Peak resident bytes: the matrix, the vocabulary as a dictionary, the process."""
        config = Path(version.path) / "classic.json"
        vocabulary = config.stat().st_size if config.is_file() else 0
        weights = max(0, version.bytes - vocabulary)
        return Memory(weights=2 * weights, kv_cache=0, compute=vocabulary * _VOCABULARY_FACTOR, overhead=_OVERHEAD)

    def knobs(self, version: Version) -> tuple[Knob, ...]:
        """None: it answers one text after another, in no time."""
        return ()

    def command(self, launch: Launch) -> Command:
        """The child process that is this replica."""
        order = {
            "model": launch.version.path,
            "host": launch.host,
            "port": launch.port,
            "secret": launch.secret.reveal(),
            "context": launch.options.context,
        }
        threads = str(launch.options.threads)
        return Command(
            argv=(sys.executable, "-P", "-m", "headgate.engines.classic_process"),
            environment={"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
            stdin=orjson.dumps(order),
        )

    def upstream(self, launch: Launch) -> Upstream:
        """The replica's socket and secret."""
        return Upstream(address=launch.address, secret=launch.secret)

    async def check_ready(self, upstream: Upstream, version: Version) -> None:
        """Return once the replica has labelled a text; raise UpstreamFailed while it cannot."""
        try:
            answer = await call_json(
                self._client, upstream, PATHS["completion"], {"prompt": "ready"}, first_byte_s=10.0
            )
        except BadRequest as error:
            raise UpstreamFailed("The replica cannot answer its first request.", code="replica_failed") from error
        if not answer.get("choices"):
            raise UpstreamFailed("The replica gave no label.", code="replica_failed")

    def stream(self, upstream: Upstream, call: Call, seed_offset: int = 0) -> AsyncGenerator[Delta, None]:
        """One attempt; see Engine.stream."""
        return self._stream(upstream, call, None)

    async def resume(
        self, upstream: Upstream, call: Call, text: str, token_ids: tuple[int, ...]
    ) -> AsyncGenerator[Delta, None]:
        """Continue an answer to the byte; see Engine.resume."""
        try:
            async with aclosing(self._stream(upstream, call, text)) as deltas:
                async for delta in deltas:
                    yield delta
        except BadRequest as error:
            raise UpstreamFailed("The text that was delivered is not how this answer begins.") from error

    def _stream(self, upstream: Upstream, call: Call, after: str | None) -> AsyncGenerator[Delta, None]:
        if call.kind == "embedding":
            return refuse(BadRequest("This model makes no embeddings; ask a pipeline of an embedding model."))
        if call.body.get("tools"):
            return refuse(BadRequest("A classic model calls no tools. Remove tools.", param="tools"))
        body = select(build_body(call, ""), _HONOURED[call.kind] | {"stream", "stream_options"})
        if after is not None:
            body["continue_after"] = after
        asked, top = wants_logprobs(call)
        ids = call.greedy and call.plain
        if ids and not asked:
            body["n_probs"] = 1
        reader = AnswerReader(call.kind, logprobs=asked, top=top, ids=ids, offset=len(after or ""))
        return stream_answer(self._client, upstream, PATHS[call.kind], body, reader)


def read_labels(folder: Path) -> tuple[str, ...]:
    """The labels of a classic version, for those who show it. Raises ModelRefused when they cannot be read."""
    try:
        return tuple(str(label) for label in json.loads((folder / "classic.json").read_text())["labels"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelRefused("classic.json cannot be read. Add the model again.", param="source") from error
