"""What a replica did with some requests, and the protocol of whatever runs replicas to be measured. Values only."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from headgate.core.chat import Call
from headgate.engines.engine import ModelOptions
from headgate.evaluation.samples import percentile


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer. Seconds from sending the request: to its first piece, and to its end."""

    first_s: float
    end_s: float
    prompt_tokens: int
    output_tokens: int
    text: str = ""

    @property
    def per_token_s(self) -> float | None:
        """Mean seconds from one token to the next; None of an answer of one token."""
        return (self.end_s - self.first_s) / (self.output_tokens - 1) if self.output_tokens > 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Some requests that one replica answered in `seconds`, `at_once` of them at any time.

    `core_s` is core-seconds that it had for it: what it used, and what its cores idled; not what other processes took.
    """

    seconds: float
    core_s: float
    at_once: int
    answers: tuple[Answer, ...]

    @property
    def service_s(self) -> float:
        """Median seconds of one request."""
        return statistics.median(answer.end_s for answer in self.answers)

    @property
    def first_token_s(self) -> float:
        """The 95th percentile of the seconds to a first token."""
        return percentile(sorted(answer.first_s for answer in self.answers), 0.95) or 0.0

    @property
    def per_token_s(self) -> float:
        """The 95th percentile of the seconds from token to token; 0 when no answer had two."""
        known = sorted(one for answer in self.answers if (one := answer.per_token_s) is not None)
        return percentile(known, 0.95) or 0.0

    @property
    def decode_tokens_per_s(self) -> float | None:
        """Tokens a second of all streams together while they decode; None when no answer had two tokens."""
        known = [one for answer in self.answers if (one := answer.per_token_s)]
        return min(self.at_once, len(self.answers)) / statistics.median(known) if known else None

    @property
    def output_tokens_per_s(self) -> float:
        """Output tokens a second, reading prompts included."""
        return sum(answer.output_tokens for answer in self.answers) / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Bytes of a replica: its fair part of memory now, and the resident peak. None where it may not be read."""

    warm: int | None
    peak: int | None


class Bench(Protocol):
    """Runs replicas of one version to be measured, a few resident, one at work."""

    async def serve(self, options: ModelOptions, calls: Sequence[Call], at_once: int) -> Served:
        """Have a replica of `options` answer all `calls`, `at_once` at any time; it is started when there is none.

        Raises ModelRefused when it cannot be run so, DoesNotFit when memory is short, and what an engine raises.
        """
        ...

    async def load(self, options: ModelOptions, *, cold: bool = False) -> float | None:
        """Start a new replica of `options`: seconds to its first token, with its bytes in the page cache or on disk
        only. None where nothing is started, or the cache could not be emptied. Raises as `serve`.
        """
        ...

    async def rest(self) -> None:
        """Stop all replicas, so that the next ones are new processes."""
        ...

    def footprint(self, options: ModelOptions) -> Footprint:
        """Memory of the resident replica of `options`."""
        ...

    async def watts(self, options: ModelOptions, calls: Sequence[Call]) -> float | None:
        """Power beyond an idle machine's while all slots work on `calls`; None where this machine has no gauge."""
        ...
