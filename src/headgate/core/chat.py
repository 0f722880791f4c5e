"""One call to a model and the pieces its answer comes in, whatever the engine.

A Call is what gateway, batch and evaluation hand to serving; a Delta is what an engine's dialect reads from its
replica. Knows nothing of HTTP or of any engine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from headgate.core.usage import Usage

Kind = Literal["chat", "completion", "embedding"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What is asked of one pipeline.

    `body` has the validated OpenAI fields that are honoured (without model, stream, stream_options, n, user);
    `schema` is the JSON schema the answer must fit, when one was asked for; `max_tokens` is the output limit in
    tokens or None; `deadline` is in monotonic seconds of the gateway's clock.
    """

    kind: Kind
    pipeline: str
    body: dict[str, Any] = field(repr=False)
    choices: int = 1
    max_tokens: int | None = None
    schema: dict[str, Any] | None = field(default=None, repr=False)
    deadline: float | None = None
    prompt_bytes: int = 0

    @property
    def greedy(self) -> bool:
        """Whether the same prompt must give the same answer, so that a broken stream can be continued."""
        return self.body.get("temperature") == 0 and not self.body.get("logit_bias")

    @property
    def plain(self) -> bool:
        """Whether the answer is free text: no schema, grammar or tools that a continuation would lose."""
        return self.schema is None and not self.body.get("tools") and "response_format" not in self.body


@dataclass(slots=True, kw_only=True)
class Delta:
    """One piece of an answer, in order. Not frozen: one is made per token on the hot path.

    `token_ids` are the engine's ids of the tokens in `text`, when the engine tells them. `progress` is (processed,
    total) prompt tokens while the prompt is being read; such a piece has nothing else in it. `embeddings` has one row
    per input text.
    """

    text: str = ""
    reasoning: str = ""
    token_ids: tuple[int, ...] = ()
    tool_calls: list[dict[str, Any]] | None = None
    logprobs: dict[str, Any] | None = None
    finish: FinishReason | None = None
    usage: Usage | None = None
    progress: tuple[int, int] | None = None
    embeddings: list[Any] | None = None
