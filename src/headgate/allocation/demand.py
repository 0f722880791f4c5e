"""The work a pipeline is offered, and how it is learned from what gateways count."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

RATE_S = 3.0  # the present: rates are means over about this long


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is forecast: requests per second at forecast.PROBABILITIES in the next `near_s` seconds, and in the `far_s`
    seconds after them.
    """

    near: tuple[float, ...]
    far: tuple[float, ...]
    near_s: float
    far_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """One pipeline's work now. Counts are over all gateways.

    `concurrency` is the recent mean of requests inside (queued + in flight), `service_s` the mean seconds of
    one request on its replica (None before the first), `oldest_wait_s` how long the first in the queue has
    waited, `idle_for_s` seconds since the last request was inside. Token rates are per second. `kept` replicas are
    worth keeping alive where capacity is paid for by use; None: it is not, or nothing is known yet. `corrections` are,
    by configuration key, how many times as long as its profile says requests take in it; none before the first.
    """

    arrivals_per_s: float = 0.0
    queued: int = 0
    in_flight: int = 0
    oldest_wait_s: float = 0.0
    concurrency: float = 0.0
    service_s: float | None = None
    prompt_tokens_per_s: float = 0.0
    output_tokens_per_s: float = 0.0
    late_per_s: float = 0.0
    idle_for_s: float = 0.0
    outlook: Outlook | None = None
    kept: int | None = None
    corrections: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def inside(self) -> int:
        """Requests waiting or being answered now."""
        return self.queued + self.in_flight

    @property
    def steady(self) -> float:
        """Mean concurrency: what is seen, or what rate and service time make of it.

        Source: Little's law, L = lambda W.
        """
        return max(self.concurrency, self.arrivals_per_s * (self.service_s or 0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What all gateways together saw of one pipeline in the last `elapsed_s` seconds, and its state now."""

    elapsed_s: float
    arrivals: int = 0
    settled: int = 0
    queued: int = 0
    in_flight: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    busy_s: float = 0.0
    late: int = 0
    oldest_wait_s: float = 0.0


NOTHING = Demand()


def learn_demand(before: Demand, seen: Seen, *, rate_window_s: float = RATE_S, now_window_s: float = 2.0) -> Demand:
    """`before` moved on by what was `seen`: rates decay with `rate_window_s` seconds, concurrency faster.

    Why exponential in elapsed time: ticks are not evenly spaced, a waking request causes one at once.
    """
    slow = 1.0 - math.exp(-seen.elapsed_s / rate_window_s)
    fast = 1.0 - math.exp(-seen.elapsed_s / now_window_s)
    inside = seen.queued + seen.in_flight
    active = bool(inside or seen.arrivals or seen.settled)
    service_s = before.service_s
    if seen.settled:
        observed = seen.busy_s / seen.settled
        # Why by count: a tick with one request says less of the mean than one with fifty.
        weight = seen.settled / (seen.settled + 20.0)
        service_s = observed if service_s is None else service_s + weight * (observed - service_s)

    def follow(rate: float, count: float) -> float:
        if seen.elapsed_s <= 0.0:
            # No time has passed since the last tick: add what came at the weight it would have had in the
            # window.
            return rate + count / rate_window_s
        return rate + slow * (count / seen.elapsed_s - rate)

    return Demand(
        arrivals_per_s=follow(before.arrivals_per_s, seen.arrivals),
        queued=seen.queued,
        in_flight=seen.in_flight,
        oldest_wait_s=seen.oldest_wait_s,
        concurrency=before.concurrency + fast * (inside - before.concurrency),
        service_s=service_s,
        prompt_tokens_per_s=follow(before.prompt_tokens_per_s, seen.prompt_tokens),
        output_tokens_per_s=follow(before.output_tokens_per_s, seen.output_tokens),
        late_per_s=follow(before.late_per_s, seen.late),
        idle_for_s=0.0 if active else before.idle_for_s + seen.elapsed_s,
        outlook=before.outlook,
        kept=before.kept,
        corrections=before.corrections,
    )
