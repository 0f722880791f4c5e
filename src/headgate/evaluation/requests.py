"""Typical requests to measure a version with: tickets, shortened or joined to about so many tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headgate.core.chance import Chance
from headgate.core.chat import Call, Kind
from headgate.core.errors import BadRequest
from headgate.engines.engine import ModelOptions
from headgate.evaluation.bench import Bench
from headgate.evaluation.tickets import write_ticket


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How long a typical request is, in tokens."""

    prompt_tokens: int = 100
    output_tokens: int = 32


class RequestWriter:
    """Writes requests of a shape. No two have the same text, so that no cache of prompts helps one of them."""

    def __init__(self, kind: Kind, shape: Shape, chance: Chance) -> None:
        self.shape = shape
        self._kind: Kind = kind
        self._chance = chance
        self._words_per_token = 0.5  # until `fit` has asked the version itself

    async def fit(self, bench: Bench, options: ModelOptions) -> None:
        """Learn how many tokens a word has, and shorten the shape to what the context holds.

        Raises BadRequest when not even a word fits.
        """
        room = max(1, options.context - self.shape.output_tokens)
        words = max(1, int(min(self.shape.prompt_tokens, room) * self._words_per_token))
        while True:
            try:
                served = await bench.serve(options, [self._call(self._text(words), 1)], 1)
                break
            except BadRequest:
                if words == 1:
                    raise
                words //= 2
        told = served.answers[0].prompt_tokens
        if told > 0:
            self._words_per_token = words / told
        prompt_tokens = min(self.shape.prompt_tokens, int(room * 0.9)) if told > 0 else self.shape.prompt_tokens
        self.shape = Shape(prompt_tokens=max(1, prompt_tokens), output_tokens=self.shape.output_tokens)

    def write(
        self, count: int, *, prompt_tokens: int | None = None, output_tokens: int | None = None
    ) -> Sequence[Call]:
        """`count` requests of the shape, or of other lengths where they are given."""
        words = max(1, round((prompt_tokens or self.shape.prompt_tokens) * self._words_per_token))
        return [self._call(self._text(words), output_tokens or self.shape.output_tokens) for _ in range(count)]

    def _text(self, words: int) -> str:
        found: list[str] = []
        while len(found) < words:
            found += write_ticket(self._chance).split(" ")
        return " ".join(found[:words])

    def _call(self, text: str, output_tokens: int) -> Call:
        if self._kind == "embedding":
            return Call(kind="embedding", pipeline="", body={"input": text})
        body = {"messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": output_tokens}
        return Call(kind="chat", pipeline="", body=body, max_tokens=output_tokens)
