"""What a load probe measured, and its sums: counts, percentiles, tokens a second. Values only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One request. Times are seconds after the load began: when it was sent, its first token came, it ended.

    `status` is that of HTTP, None when there was no answer; `failure` is what went wrong, in a word, or None.
    """

    number: int
    pipeline: str
    start_s: float
    end_s: float
    first_s: float | None = None
    tokens: int = 0
    status: int | None = None
    failure: str | None = None

    @property
    def latency_s(self) -> float:
        """From sending the request to the end of its answer."""
        return self.end_s - self.start_s

    @property
    def first_token_s(self) -> float | None:
        """From sending the request to the first piece of its answer."""
        return None if self.first_s is None else self.first_s - self.start_s

    def is_late(self, late_after_s: float) -> bool:
        """Whether it was answered, and its first token came more than `late_after_s` seconds after it was sent."""
        return self.failure is None and (self.first_token_s is None or self.first_token_s > late_after_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Many samples in numbers. Times are milliseconds and of those that did not fail; None when all failed.

    `late` counts those that were answered, but not in time; `on_time_per_s` is goodput: answers in time a second.
    """

    requests: int
    failures: int
    late: int
    latency_ms_p50: float | None
    latency_ms_p95: float | None
    first_token_ms_p50: float | None
    first_token_ms_p95: float | None
    tokens: int
    tokens_per_s: float
    requests_per_s: float
    on_time_per_s: float


def summarise(samples: Iterable[Sample], *, seconds: float, late_after_s: Mapping[str, float]) -> Summary:
    """The summary of `samples` of a load that lasted `seconds`; the first token of each pipeline is late after
    `late_after_s` of its own.
    """
    taken = list(samples)
    late = sum(1 for one in taken if one.is_late(late_after_s[one.pipeline]))
    good = [one for one in taken if one.failure is None]
    latencies = sorted(one.latency_s * 1e3 for one in good)
    firsts = sorted(one.first_token_s * 1e3 for one in good if one.first_token_s is not None)
    tokens = sum(one.tokens for one in taken)
    return Summary(
        requests=len(taken),
        failures=len(taken) - len(good),
        late=late,
        latency_ms_p50=percentile(latencies, 0.5),
        latency_ms_p95=percentile(latencies, 0.95),
        first_token_ms_p50=percentile(firsts, 0.5),
        first_token_ms_p95=percentile(firsts, 0.95),
        tokens=tokens,
        tokens_per_s=tokens / seconds if seconds > 0 else 0.0,
        requests_per_s=len(good) / seconds if seconds > 0 else 0.0,
        on_time_per_s=(len(good) - late) / seconds if seconds > 0 else 0.0,
    )


def percentile(ordered: Sequence[float], part: float) -> float | None:
    """The smallest of the `ordered` values that at least `part` of them do not exceed; None when there is none.

    Source: the nearest-rank definition.
    """
    if not ordered:
        return None
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]
