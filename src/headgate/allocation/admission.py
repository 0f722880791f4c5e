"""Whether a request may enter, must wait, or is refused at once with an honest time to come again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

LONGEST_RETRY_S = 60.0
BLOCKED_RETRY_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """A verdict. 'admit': a slot is free; 'hold': wait in the queue; 'refuse': answer 429 or 503 now.

    `wait_s` is the expected wait in seconds; `retry_after_s` a whole number of seconds, set on refusal;
    `cause` says which rule refused.
    """

    action: Literal["admit", "hold", "refuse"]
    wait_s: float = 0.0
    retry_after_s: float | None = None
    cause: Literal["queue_full", "deadline", "blocked"] | None = None


ADMIT = Admission(action="admit")


def decide_admission(
    *,
    slots_free: int,
    slots: int,
    queued: int,
    queue_limit: int,
    service_s: float | None,
    wake_s: float = 0.0,
    time_left_s: float | None = None,
    blocked: bool = False,
) -> Admission:
    """Admit when a slot is free and nobody waits, hold while queue and deadline allow, else refuse.

    `slots` is how many requests the ready replicas work on at once (0 while none is ready: then `wake_s` is
    how long the first takes to answer); `service_s` the mean seconds of one request in its slot (None: not
    known yet); `time_left_s` the seconds to the request's deadline (None: it has none).
    """
    if slots_free > 0 and queued == 0:
        if time_left_s is not None and time_left_s <= 0.0:
            return Admission(action="refuse", retry_after_s=1.0, cause="deadline")
        return ADMIT
    if blocked and slots == 0:
        return Admission(action="refuse", retry_after_s=BLOCKED_RETRY_S, cause="blocked")
    wait_s = expect_wait(queued=queued, slots=slots, service_s=service_s, wake_s=wake_s)
    if queued >= queue_limit:
        # Why half: one freed place would go to the first who asks; the rest would come and be refused again.
        ahead = max(1, queued - queue_limit // 2)
        again_s = expect_wait(queued=ahead - 1, slots=slots, service_s=service_s, wake_s=wake_s)
        return Admission(action="refuse", wait_s=wait_s, retry_after_s=_whole(again_s), cause="queue_full")
    if time_left_s is not None and wait_s > time_left_s:
        again_s = wait_s - time_left_s
        return Admission(action="refuse", wait_s=wait_s, retry_after_s=_whole(again_s), cause="deadline")
    return Admission(action="hold", wait_s=wait_s)


def expect_wait(*, queued: int, slots: int, service_s: float | None, wake_s: float = 0.0) -> float:
    """Seconds until a request behind `queued` others gets a slot, when `slots` of them free up in turn.

    A service time that is not known counts as 0: nobody is refused on a guess.
    """
    if slots == 0:
        return wake_s + queued * (service_s or 0.0)
    return (queued + 1) * (service_s or 0.0) / slots


def _whole(seconds: float) -> float:
    """Source: RFC 9110 section 10.2.3, Retry-After is a whole number of seconds."""
    return float(min(LONGEST_RETRY_S, max(1, math.ceil(seconds))))
